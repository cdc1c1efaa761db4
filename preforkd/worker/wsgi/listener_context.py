"""What the connections of one listener share: bounds, the base of the environ, and a cache of heads.

Clients repeat themselves: on a kept connection, and through a proxy, the same bytes arrive many times. A
head that arrived twice is cached with its environ and not parsed a third time. The cache is bounded, and
dropping an entry costs speed only.
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
"""First bytes of input that is mostly more than a head: POST, PUT, PATCH, and empty lines."""


class CachedHead:
    """A parsed head with what every request with the same bytes shares."""

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
        """The client's address, where a trusted proxy named it."""
        self.line = padded_request_line(raw.partition(b"\r\n")[0])
        """What the slot shows while the application runs."""
        self.head_only = head.method == "HEAD"
        self.http11 = head.version == "1.1"
        self.keep = head.keep_alive
        self.probe = ""
        """A probe of a health check: ``alive`` or ``ready``; empty: none."""
        self.complete = head.length == 0
        """There is no body, and the application answers."""


class ListenerContext:
    """The shared state of one listener's connections, for trusted peers or for all others.

    ``style`` names the headers by which a trusted proxy names the client: forwarded, x-forwarded or off.
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
        """The listener is bound to every address; a connection has one of them."""
        self.bounds = bounds
        self.write_timeout = write_timeout
        """Seconds in which a client must take ``min_rate`` bytes times their number of an answer."""
        self.min_rate = min_rate
        self.answer_spool = answer_spool
        """Bytes of an answer in parts that may be spooled; 0: no answer is spooled."""
        self.answers = answers or Budget()
        """The bound on the kept output of all connections of the worker."""
        self.heads: BoundedCache[bytes, CachedHead] = BoundedCache(_HEADS)
        """The cache, by the bytes of the head."""
        self._seen: BoundedCache[int, None] = BoundedCache(_SEEN)
        self._base = base
        self._probes = probes
        self._style = style
        self._trust = trust
        self._parser = HeadParser(bounds)

    def cached_head(self, data: bytes) -> CachedHead:
        """Return the parsed form of a complete head, cached or not. Raises RequestError."""
        cached = self.heads.get(data)
        if cached is None:
            cached = self._parse(data)
            self._store(data, cached)
        return cached

    def complete_head(self, data: bytes) -> CachedHead | None:
        """Return the parsed head if the data is exactly one valid head; None otherwise."""
        cached = self.heads.get(data)
        if cached is not None or data[-4:] != b"\r\n\r\n" or data[:1] in _SLOW:
            return cached
        if data.find(b"\r\n\r\n") != len(data) - 4:
            return None
        try:
            return self.cached_head(data)
        except RequestError:
            return None  # the reader reports it

    def head_with_body(self, data: bytes) -> tuple[CachedHead, int] | None:
        """Return the parsed head and the offset of its body, if the data is a valid head and that.

        Only for a body with a Content-Length, small enough for memory, with nothing behind it. None
        otherwise.
        """
        start = data.find(b"\r\n\r\n") + 4
        if start < 4 or start == len(data) or data[:1] != b"P":
            return None  # pipelined requests behind a GET would be parsed twice
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
            # Heads that arrive only once would evict those that repeat.
            self._seen.keep(mark, None)
        else:
            self.heads.keep(data, cached)


class _UntrustedHead:
    """A head without the headers that only a trusted proxy may send."""

    def __init__(self, head: RequestHead) -> None:
        self.method, self.target, self.version = head.method, head.target, head.version
        self.headers = forwarded.without_forwarding(head)
