"""One application as WSGI and as ASGI: it answers with what it was given, in the same bytes."""

import json


def _answer(body, *seen):
    text = json.dumps([*seen, body.decode("latin-1")]).encode()
    return text, [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]


def echo_wsgi(environ, start_response):
    body = environ["wsgi.input"].read()
    path = environ["PATH_INFO"].encode("latin-1").decode()
    version = environ["SERVER_PROTOCOL"].removeprefix("HTTP/")
    host = environ.get("HTTP_HOST", "")
    text, headers = _answer(
        body, environ["REQUEST_METHOD"], path, environ["QUERY_STRING"], host, version
    )
    start_response("200 OK", headers)
    return [text]


async def echo_asgi(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan, no WebSockets")
    body = b""
    while (event := await receive())["type"] == "http.request":
        body += event["body"]
        if not event["more_body"]:
            break
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    # WSGI has no path for the target *.
    path = "" if scope["path"] == "*" else scope["path"]
    text, headers = _answer(
        body, scope["method"], path, scope["query_string"].decode(), host, scope["http_version"]
    )
    fields = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": text})
