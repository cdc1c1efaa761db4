"""What the connections of one listener have in common: bounds, environ, and the heads seen before.

A client mostly repeats itself: on a kept connection, and through a proxy, the same bytes come again
and again. A head that came twice is remembered with its environ, so that it is neither judged nor
taken apart a third time. What is remembered is bounded, and costs only speed when it is forgotten.
"""

from preforkd.apps import wsgi
from preforkd.http import forwarded
from preforkd.http.caches import BoundedCache
from preforkd.http.head import Bounds, Budget, Head, HeadParser, RequestError
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
        "keep",
        "line",
        "modern",
        "probe",
        "raw",
        "remote",
    )

    def __init__(self, raw: bytes, head: Head, environ: wsgi.Environ) -> None:
        self.raw = raw
        self.head = head
        self.environ = environ
        self.remote: str | None = None
        """The client, where a trusted proxy has named it."""
        self.line = padded_request_line(raw.partition(b"\r\n")[0])
        """What the slot says while it is with the application."""
        self.head_only = head.method == "HEAD"
        self.modern = head.version == "1.1"
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
        write_patience: float,
        probes: dict[bytes, str],
        min_rate: int = 0,
        answer_spool: int = 0,
        answers: Budget | None = None,
        style: str = "off",
        trust: forwarded.Trust | None = None,
        anywhere: bool = False,
    ) -> None:
        self.index = index
        self.anywhere = anywhere
        """The listener has every address of the machine: a connection has one of them."""
        self.bounds = bounds
        self.write_patience = write_patience
        """Seconds for a client to take some of an answer: ``min_rate`` bytes in each of them."""
        self.min_rate = min_rate
        self.answer_spool = answer_spool
        """Bytes of an answer in parts that may wait in a file; 0: no answer waits in one."""
        self.answers = answers or Budget()
        """Bytes that all answers of the worker may take while clients read them."""
        self.heads: BoundedCache[bytes, CachedHead] = BoundedCache(_HEADS)
        """By their bytes; read by the loop before it asks `known`."""
        self._seen: BoundedCache[int, None] = BoundedCache(_SEEN)
        self._base = base
        self._probes = probes
        self._style = style
        self._trust = trust
        self._parser = HeadParser(bounds)

    def known(self, data: bytes) -> CachedHead:
        """Return what follows from a complete head. Raises RequestError."""
        known = self.heads.get(data)
        if known is None:
            known = self._make(data)
            self._remember(data, known)
        return known

    def whole(self, data: bytes) -> CachedHead | None:
        """Return what follows from these bytes, if they are one head that nothing follows, and a good one."""
        known = self.heads.get(data)
        if known is not None or data[-4:] != b"\r\n\r\n" or data[:1] in _SLOW:
            return known
        if data.find(b"\r\n\r\n") != len(data) - 4:
            return None
        try:
            return self.known(data)
        except RequestError:
            return None  # the reader will find it, too

    def with_body(self, data: bytes) -> tuple[CachedHead, int] | None:
        """Return what follows from these bytes, and where the body begins, if they are a good head and that.

        The body is one whose length was told, to be kept in memory, and not longer than what is here
        and what may be waiting behind it.
        """
        start = data.find(b"\r\n\r\n") + 4
        if start < 4 or start == len(data) or data[:1] != b"P":
            return None  # what is sent ahead behind a GET would be judged twice
        try:
            known = self.known(data[:start])
        except RequestError:
            return None
        head = known.head
        most = min(self.bounds.spool, self.bounds.max_body)
        fits = len(data) - start <= head.length <= most
        if head.length <= 0 or not fits or head.expects_continue or known.probe:
            return None
        return known, start

    def _make(self, data: bytes) -> CachedHead:
        head = self._parser.parse(data)
        if self._style == "off":
            known = CachedHead(data, head, wsgi.environ_for(head, self._base))
        else:
            known = self._make_behind_proxy(data, head)
        if self._probes and head.method in {"GET", "HEAD"}:
            known.probe = self._probes.get(head.target.partition(b"?")[0], "")
            known.complete = known.complete and not known.probe
        return known

    def _make_behind_proxy(self, data: bytes, head: Head) -> CachedHead:
        if self._trust is None:
            known = CachedHead(data, head, {})
            known.environ = wsgi.environ_for(_Shorn(head), self._base)
            return known
        origin = forwarded.forwarded(head, self._style, self._trust)
        known = CachedHead(data, head, wsgi.environ_for(head, self._base))
        if origin.scheme is not None:
            known.environ["wsgi.url_scheme"] = origin.scheme
        if origin.address is not None:
            known.remote = known.environ["REMOTE_ADDR"] = origin.address
        return known

    def _remember(self, data: bytes, known: CachedHead) -> None:
        if len(data) > _HEAD_SIZE:
            return
        mark = hash(data)
        if mark not in self._seen:
            # Heads that come only once would push out those that come again.
            self._seen.keep(mark, None)
        else:
            self.heads.keep(data, known)


class _Shorn:
    """A head without the headers that only a proxy may send."""

    def __init__(self, head: Head) -> None:
        self.method, self.target, self.version = head.method, head.target, head.version
        self.headers = forwarded.without_forwarding(head)
