"""What the engine makes of bytes."""

from dataclasses import dataclass

from preforkd.apps import wsgi
from preforkd.http.engine import EndOfRequest, HttpEngine
from preforkd.http.head import Bounds, RequestHead
from preforkd.http.states import State
from preforkd.worker.listener_context import ListenerContext

BOUNDS = Bounds(
    max_line=512, max_field=700, max_header=1024, max_fields=20, max_body=1000, spool=100
)
BUILD = wsgi.environ_builder("localhost", "80", secure=False, threads=False)
GET = b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n"


def engine(bounds=BOUNDS, **how):
    context = ListenerContext(0, bounds, BUILD, probes={}, **how)
    return HttpEngine(bounds, context.cached_head)


def answering(head=GET % b""):
    """Return an engine that owes the answer to a request."""
    made = engine()
    made.receive(head)
    assert made.next_event() is not None
    return made


@dataclass
class Read:
    """A complete request."""

    head: RequestHead
    body: bytes
    trailers: tuple


class Sink:
    """A sink that keeps the parts of a body."""

    def __init__(self):
        self.parts = []

    def write(self, data):
        self.parts.append(data)


def read(*pieces, bounds=BOUNDS):
    """Return the requests that are complete after these pieces, each answered; a refusal is raised."""
    reading = Reading(bounds)
    for piece in pieces:
        reading.feed(piece)
    return reading.requests


class Reading:
    """An engine with the requests that it has returned, each answered with nothing."""

    def __init__(self, bounds=BOUNDS):
        self.engine = engine(bounds)
        self.requests = []
        self._sink = Sink()

    def feed(self, piece):
        """Take input; return nothing. Raises RequestError."""
        made = self.engine
        made.receive(piece)
        while (event := made.next_event()) is not None:
            if isinstance(event, EndOfRequest):
                head, body, trailers = made.parsed.head, b"".join(self._sink.parts), event.trailers
            elif made.client is State.BODY:
                made.sink = self._sink = Sink()
                continue
            else:
                head, body, trailers = event.head, b"", ()
            self.requests.append(Read(head, body, trailers))
            made.answer_ended(True)
