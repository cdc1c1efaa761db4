"""The scope of a request: what an ASGI application gets instead of a request head. ASGI, HTTP 2.5."""

from typing import Any
from urllib.parse import unquote

from preforkd.config.prefix import with_prefix
from preforkd.http.forwarded import Origin
from preforkd.http.head import RequestHead
from preforkd.worker.listener_context import WILDCARDS, Build, Endpoint

Scope = dict[str, Any]
Message = dict[str, Any]

EXTENSIONS: dict[str, dict[str, Any]] = {
    "http.response.early_hint": {},
    "http.response.pathsend": {},
    "http.response.trailers": {},
}
"""What every connection supports."""
_ASGI = {"version": "3.0", "spec_version": "2.5"}


def scope_builder(endpoint: Endpoint) -> Build:
    """Return the function that makes the scope of a head on a listener, to be copied for each request.

    ``client`` is missing unless a proxy named it, as are ``state`` and, on a listener for every address,
    ``server``; `HttpProtocol` adds them.
    """
    scheme = "https" if endpoint.secure else "http"
    unix = endpoint.host == "localhost"  # a bound host is an address
    here = None if unix else (endpoint.host, int(endpoint.port))

    def build(head: RequestHead, origin: Origin) -> Scope:
        target, _, query = _origin_form(head.target).partition(b"?")
        raw_path, path = target, target.decode("ascii")
        if "%" in path:
            path = unquote(path)
        if origin.prefix:
            whole = with_prefix(path, origin.prefix)
            if whole != path:  # stripped by the proxy
                raw_path = origin.prefix.encode("ascii") + target
                path = whole
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": head.version,
            "method": head.method,
            "scheme": origin.scheme or scheme,
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": origin.prefix,
            "headers": head.headers,
        }
        if origin.address is not None:
            scope["client"] = (origin.address, 0)
        if origin.host is not None or origin.port is not None:
            port = int(origin.port) if origin.port is not None else None
            scope["server"] = (origin.host or endpoint.host, port)
        elif endpoint.host not in WILDCARDS:
            scope["server"] = here
        return scope

    return build


def _origin_form(target: bytes) -> bytes:
    if target.startswith(b"/") or target == b"*":
        return target
    rest = target.partition(b"://")[2]
    path = rest[len(rest.partition(b"/")[0].partition(b"?")[0]) :]
    return path if path.startswith(b"/") else b"/" + path
