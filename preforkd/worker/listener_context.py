"""What the connections of one listener share: bounds, TLS, the trust in the peer, and a cache of heads.

Clients repeat themselves: on a kept connection, and through a proxy, the same bytes arrive many times. A
head that arrived twice is cached with what the application gets of it, and not parsed a third time. The
cache is bounded, and dropping an entry costs speed only.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from preforkd.config.settings import Settings
from preforkd.http import forwarded
from preforkd.http.caches import BoundedCache
from preforkd.http.forwarded import Origin, Trust
from preforkd.http.head import Bounds, Budget, HeadParser, RequestError, RequestHead
from preforkd.ipc.slots import padded_request_line
from preforkd.worker.acceptor import Listener

if TYPE_CHECKING:
    import ssl

_HEADS = 128
_HEAD_SIZE = 2048
_SEEN = 1024
_SLOW = (b"P", b"\r")
"""First bytes of input that is mostly more than a head: POST, PUT, PATCH, and empty lines."""
WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound

Template = dict[str, Any]
"""What the application gets of every request with the same head: the WSGI environ, or the ASGI scope."""
Build = Callable[[RequestHead, Origin], Template]
"""Makes the template from a head and from what trusted proxies reported."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a listener is reached: the host as bound (``localhost`` for a Unix socket), the port, TLS."""

    host: str
    port: str
    secure: bool


class CachedHead:
    """A parsed head with what every request with the same bytes shares."""

    __slots__ = (
        "complete",
        "head",
        "head_only",
        "http11",
        "keep",
        "line",
        "probe",
        "raw",
        "remote",
        "template",
    )

    def __init__(
        self, raw: bytes, head: RequestHead, template: Template, remote: str | None, probe: str
    ) -> None:
        self.raw = raw
        self.head = head
        self.template = template
        """Copied for each request."""
        self.remote = remote
        """The client's address, where a trusted proxy named it."""
        self.line = padded_request_line(raw.partition(b"\r\n")[0])
        """What the slot shows while the application runs."""
        self.head_only = head.method == "HEAD"
        self.http11 = head.version == "1.1"
        self.keep = head.keep_alive
        self.probe = probe
        """A probe of a health check: ``alive`` or ``ready``; empty: none."""
        self.complete = head.length == 0 and not probe
        """There is no body, and the application answers."""


class HttpListener:
    """A listener: its TLS context, whether its peers send PROXY headers, and its connections' contexts.

    ``make_build`` returns the shell's maker of templates. Raises ConfigurationError for a certificate that
    cannot be used.
    """

    def __init__(
        self,
        index: int,
        listener: Listener,
        settings: Settings,
        make_build: Callable[[Endpoint], Build],
        *,
        trust: Trust,
        budget: Budget,
    ) -> None:
        named = {entry.name or entry.address: entry for entry in settings.listen}
        entry = named.get(listener.name)
        self.proxy_protocol = entry is not None and entry.proxy_protocol
        self.tls: ssl.SSLContext | None = None
        if entry is not None and entry.tls:
            from preforkd.worker import tls  # noqa: PLC0415 - OpenSSL only where TLS is on

            self.tls = tls.server_context(settings.tls)
        sock, host, port = listener.sock, "localhost", "80"
        if sock.family != socket.AF_UNIX:
            host, number = sock.getsockname()[:2]
            port = str(number)
        build = make_build(Endpoint(host, port, self.tls is not None))
        http = settings.http
        bounds = Bounds(
            max_line=http.max_line,
            max_field=http.max_field,
            max_header=http.max_header,
            max_fields=http.max_fields,
            max_body=http.max_body,
            spool=http.spool,
            budget=budget,
        )
        probes = {http.healthy.encode(): "alive", http.ready.encode(): "ready"}
        probes.pop(b"", None)
        self.contexts = tuple(
            ListenerContext(
                index,
                bounds,
                build,
                probes=probes,
                style=settings.proxy.headers,
                trust=trusted,
                parameters=settings.proxy.parameters,
                prefix=http.prefix,
                wildcard=host in WILDCARDS,
            )
            for trusted in (None, trust)
        )
        """The context of connections from peers that are not trusted, and of those that are."""


class ListenerContext:
    """The shared state of one listener's connections, for trusted peers or for all others.

    ``style`` names the headers by which a trusted proxy names the client: forwarded, x-forwarded or off.
    ``trust`` is None for peers that are not trusted. ``parameters``: those of the headers that are taken.
    ``prefix``: the mount prefix.
    """

    def __init__(
        self,
        index: int,
        bounds: Bounds,
        build: Build,
        *,
        probes: dict[bytes, str],
        style: str = "off",
        trust: Trust | None = None,
        parameters: tuple[str, ...] = ("for", "proto"),
        prefix: str = "",
        wildcard: bool = False,
    ) -> None:
        self.index = index
        self.wildcard = wildcard
        """The listener is bound to every address; a connection has one of them."""
        self.bounds = bounds
        self.heads: BoundedCache[bytes, CachedHead] = BoundedCache(_HEADS)
        """The cache, by the bytes of the head."""
        self._seen: BoundedCache[int, None] = BoundedCache(_SEEN)
        self._build = build
        self._probes = probes
        self._style = style
        self._trust = trust
        self._parameters = parameters
        self._direct = Origin(prefix=prefix)
        self._parser = HeadParser(bounds)

    @property
    def trusted(self) -> bool:
        """Return whether the peers are trusted."""
        return self._trust is not None

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
        origin, visible = self._direct, head
        if self._style != "off":
            if self._trust is None:
                visible = replace(head, headers=forwarded.without_forwarding(head))
            else:
                origin = forwarded.forwarded(
                    head, self._style, self._trust, self._parameters, origin.prefix
                )
                if origin.authority is not None:
                    visible = replace(head, headers=forwarded.with_host(head, origin.authority))
        probe = ""
        if self._probes and head.method in {"GET", "HEAD"}:
            probe = self._probes.get(head.target.partition(b"?")[0], "")
        return CachedHead(data, head, self._build(visible, origin), origin.address, probe)

    def _store(self, data: bytes, cached: CachedHead) -> None:
        if len(data) > _HEAD_SIZE:
            return
        mark = hash(data)
        if mark not in self._seen:
            # Heads that arrive only once would evict those that repeat.
            self._seen.keep(mark, None)
        else:
            self.heads.keep(data, cached)
