"""The body of a request as it arrives, until the application receives it."""

from preforkd.worker.asgi.scope import Message

MAX_UNREAD = 64 * 1024
"""Bytes of a body, or of pipelined requests, that wait, above which nothing more is received."""


class RequestBody:
    """The parts of a body; `write` makes it a sink of the engine."""

    __slots__ = ("_parts", "complete", "received", "unread")

    def __init__(self, *, complete: bool) -> None:
        self._parts: list[bytes] = []
        self.unread = 0
        """Bytes that the application has not received."""
        self.complete = complete
        """All parts have arrived."""
        self.received = False
        """The application has received the end."""

    @property
    def ready(self) -> bool:
        """Return whether `take` has something to return."""
        return (self.complete or bool(self._parts)) and not self.received

    def add(self, data: bytes) -> None:
        """Add a part."""
        self._parts.append(data)
        self.unread += len(data)

    def take(self) -> Message:
        """Return the parts that have arrived as a message for the application."""
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.unread = 0
        self.received = self.complete
        return {"type": "http.request", "body": body, "more_body": not self.complete}
