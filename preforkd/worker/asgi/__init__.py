"""The ASGI server: uvicorn's protocols with the limits, the access log and the drain of preforkd.

Theory of operation

Everything runs in one asyncio (or uvloop) event loop in the main thread.  `server` lets the loop watch the
acceptor's epoll, which is itself pollable, so that the exclusive wake-ups of the kernel and the order of
accepting are those of the other kinds: one accept for each wake-up.  uvicorn's own server, its accept loop
and its ticker are not used.

`protocol` is uvicorn's HTTP protocol with sizes and timeouts bounded; `cycle` is one request and its
answer; `middleware` wraps the application with probes, forwarded headers, slot counters and the access
log.  A connection belongs to its protocol object from ``connection_made`` to ``connection_lost``; only the
WebSocket upgrade passes it to another.

A drain waits for the handshakes that have begun, closes idle connections after ``linger``, and waits for
the running tasks.  Shortly before ``timeouts.drain`` ends, the tasks that still run are logged and
cancelled, so that the application's lifespan shutdown always runs.  What uvicorn's classes set and expect
is part of this package's contract: read `HttpToolsProtocol` and `RequestResponseCycle` before you change it.
"""
