"""What the servers of the benchmarks serve."""

import time

BODY = b"Hello, World!"
LARGE = b"x" * (1 << 20)


def wsgi(environ, start_response):
    """Answer with 13 bytes."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [BODY]


def upload(environ, start_response):
    """Read the body, and say how long it was."""
    text = b"%d" % len(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]


def download(environ, start_response):
    """Answer with 1 MiB."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(LARGE)))])
    return [LARGE]


def mixed(environ, start_response):
    """Take 500 ms for /slow, and nothing for everything else."""
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.5)
    return wsgi(environ, start_response)


async def asgi(scope, receive, send):
    """Answer with 13 bytes."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def echo(receive, send):
    """Send each message of a WebSocket back."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})
