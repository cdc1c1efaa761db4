"""The ASGI shell: protocols of uvicorn, with the limits, the access log and the drain of preforkd."""
