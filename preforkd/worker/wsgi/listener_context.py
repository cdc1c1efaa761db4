"""What the connections of one listener have in common: bounds, environ, and the heads seen before.

A client mostly repeats itself: on a kept connection, and through a proxy, the same bytes come again
and again. A head that came twice is remembered with its environ, so that it is neither judged nor
taken apart a third time. What is remembered is bounded, and costs only speed when it is forgotten.
"""

from preforkd.apps import wsgi
from preforkd.http import forwarded
from preforkd.http.caches import BoundedCache
from preforkd.http.head import Bounds, Budget, HeadParser, RequestError, RequestHead
from preforkd.ipc.slots import padded_request_line

_HEADS = 128
_HEAD_SIZE = 2048
_SEEN = 1024
_SLOW = (b"P", b"\r")
"""How heads begin whose bodies mostly follow (POST, PUT, PATCH), and empty lines before a head."""


class CachedHead:
    """A head, and what follows from it for each request that has it."""

    __slots__ = (
        "complete",
        "environ",
        "head",
        "head_only",
        "http11",
        "keep",
        "line",
        "probe",
        "raw",
        "remote",
    )

    def __init__(self, raw: bytes, head: RequestHead, environ: wsgi.Environ) -> None:
        self.raw = raw
        self.head = head
        self.environ = environ
        self.remote: str | None = None
        """The client, where a trusted proxy has named it."""
        self.line = padded_request_line(raw.partition(b"\r\n")[0])
        """What the slot says while it is with the application."""
        self.head_only = head.method == "HEAD"
        self.http11 = head.version == "1.1"
        self.keep = head.keep_alive
        self.probe = ""
        """It asks for our health: ``alive`` or ``ready``."""
        self.complete = head.length == 0
        """There is no body to wait for, and the application is to answer."""


class ListenerContext:
    """One listener's side of the HTTP worker, for peers that are trusted or for those that are not.

    ``style`` is how a trusted proxy names the client: forwarded, x-forwarded or off.
    """

    def __init__(
        self,
        index: int,
        base: wsgi.Environ,
        bounds: Bounds,
        *,
        write_timeout: float,
        probes: dict[bytes, str],
        min_rate: int = 0,
        answer_spool: int = 0,
        answers: Budget | None = None,
        style: str = "off",
        trust: forwarded.Trust | None = None,
        wildcard: bool = False,
    ) -> None:
        self.index = index
        self.wildcard = wildcard
        """The listener has every address of the machine: a connection has one of them."""
        self.bounds = bounds
        self.write_timeout = write_timeout
        """Seconds for a client to take some of an answer: ``min_rate`` bytes in each of them."""
        self.min_rate = min_rate
        self.answer_spool = answer_spool
        """Bytes of an answer in parts that may wait in a file; 0: no answer waits in one."""
        self.answers = answers or Budget()
        """Bytes that all answers of the worker may take while clients read them."""
        self.heads: BoundedCache[bytes, CachedHead] = BoundedCache(_HEADS)
        """By their bytes; read by the loop before it asks `cached_head`."""
        self._seen: BoundedCache[int, None] = BoundedCache(_SEEN)
        self._base = base
        self._probes = probes
        self._style = style
        self._trust = trust
        self._parser = HeadParser(bounds)

    def cached_head(self, data: bytes) -> CachedHead:
        """Return what follows from a complete head. Raises RequestError."""
        cached = self.heads.get(data)
        if cached is None:
            cached = self._parse(data)
            self._store(data, cached)
        return cached

    def complete_head(self, data: bytes) -> CachedHead | None:
        """Return what follows from these bytes, if they are one head that nothing follows, and a good one."""
        cached = self.heads.get(data)
        if cached is not None or data[-4:] != b"\r\n\r\n" or data[:1] in _SLOW:
            return cached
        if data.find(b"\r\n\r\n") != len(data) - 4:
            return None
        try:
            return self.cached_head(data)
        except RequestError:
            return None  # the reader will find it, too

    def head_with_body(self, data: bytes) -> tuple[CachedHead, int] | None:
        """Return what follows from these bytes, and where the body begins, if they are a good head and that.

        The body is one whose length was told, to be kept in memory, and not longer than what is here
        and what may be waiting behind it.
        """
        start = data.find(b"\r\n\r\n") + 4
        if start < 4 or start == len(data) or data[:1] != b"P":
            return None  # what is sent ahead behind a GET would be judged twice
        try:
            cached = self.cached_head(data[:start])
        except RequestError:
            return None
        head = cached.head
        most = min(self.bounds.spool, self.bounds.max_body)
        fits = len(data) - start <= head.length <= most
        if head.length <= 0 or not fits or head.expects_continue or cached.probe:
            return None
        return cached, start

    def _parse(self, data: bytes) -> CachedHead:
        head = self._parser.parse(data)
        if self._style == "off":
            cached = CachedHead(data, head, wsgi.environ_for(head, self._base))
        else:
            cached = self._parse_forwarded(data, head)
        if self._probes and head.method in {"GET", "HEAD"}:
            cached.probe = self._probes.get(head.target.partition(b"?")[0], "")
            cached.complete = cached.complete and not cached.probe
        return cached

    def _parse_forwarded(self, data: bytes, head: RequestHead) -> CachedHead:
        if self._trust is None:
            cached = CachedHead(data, head, {})
            cached.environ = wsgi.environ_for(_UntrustedHead(head), self._base)
            return cached
        origin = forwarded.forwarded(head, self._style, self._trust)
        cached = CachedHead(data, head, wsgi.environ_for(head, self._base))
        if origin.scheme is not None:
            cached.environ["wsgi.url_scheme"] = origin.scheme
        if origin.address is not None:
            cached.remote = cached.environ["REMOTE_ADDR"] = origin.address
        return cached

    def _store(self, data: bytes, cached: CachedHead) -> None:
        if len(data) > _HEAD_SIZE:
            return
        mark = hash(data)
        if mark not in self._seen:
            # Heads that come only once would push out those that come again.
            self._seen.keep(mark, None)
        else:
            self.heads.keep(data, cached)


class _UntrustedHead:
    """A head without the headers that only a proxy may send."""

    def __init__(self, head: RequestHead) -> None:
        self.method, self.target, self.version = head.method, head.target, head.version
        self.headers = forwarded.without_forwarding(head)
