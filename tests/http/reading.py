"""What a connection would make of bytes."""

from preforkd.apps import wsgi
from preforkd.http.head import Bounds
from preforkd.http.request import RequestReader
from preforkd.worker.listener_context import ListenerContext

BOUNDS = Bounds(
    max_line=512, max_field=700, max_header=1024, max_fields=20, max_body=1000, spool=100
)
BUILD = wsgi.environ_builder("localhost", "80", secure=False, threads=False)


def reader(bounds=BOUNDS, **how):
    context = ListenerContext(0, bounds, BUILD, probes={}, **how)
    return RequestReader(bounds, context.cached_head)


def read(*pieces, bounds=BOUNDS):
    """Return the requests that are complete after these pieces; a refusal is raised."""
    made = reader(bounds)
    requests = []
    for piece in pieces:
        made.feed(piece)
        while (request := made.next()) is not None:
            requests.append(request)
    return requests
