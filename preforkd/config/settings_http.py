"""The sections http, tls, proxy and access_log: what the HTTP workers do with a connection."""

from typing import Annotated, ClassVar, Literal

from msgspec import Struct

from preforkd.config.declaration import GENERATION, GIB, HOUR, KIB, MIB, Unit, declare
from preforkd.config.kinds import ALL_KINDS, HTTP_KINDS, SPOOLING_KINDS


class HttpSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP worker."""

    KINDS: ClassVar[tuple[str, ...]] = HTTP_KINDS

    keep_alive: Annotated[
        float,
        declare(
            "How long an idle connection stays open for another request. 0: closed after each answer.",
            GENERATION,
            ge=0.0,
            le=HOUR,
            unit=Unit.DURATION,
        ),
    ] = 15.0
    header_timeout: Annotated[
        float,
        declare(
            "From the first byte of a request until the end of its headers; also the time that a TLS "
            "handshake and the PROXY protocol's header may take, for kind stream as well.",
            GENERATION,
            ge=0.1,
            le=HOUR,
            unit=Unit.DURATION,
            kinds=ALL_KINDS,
        ),
    ] = 15.0
    body_timeout: Annotated[
        float,
        declare(
            "The longest pause between two parts of a request's body, or while a client reads an answer.",
            GENERATION,
            ge=0.1,
            le=HOUR,
            unit=Unit.DURATION,
        ),
    ] = 30.0
    min_rate: Annotated[
        int,
        declare(
            "Bytes per second that a request's body must bring, and that the client must read of an "
            "answer, on the average of each body_timeout. 0: as slow as it likes.",
            GENERATION,
            ge=0,
            le=1 * GIB,
            unit=Unit.SIZE,
        ),
    ] = 256
    max_requests: Annotated[
        int,
        declare(
            "Requests that one connection may bring before it is closed. 0: any number.",
            GENERATION,
            ge=0,
            le=1_000_000_000,
        ),
    ] = 0
    max_line: Annotated[
        int,
        declare(
            "Size of the request line; more is answered with 414.",
            GENERATION,
            ge=256,
            le=1 * MIB,
            unit=Unit.SIZE,
        ),
    ] = 8 * KIB
    max_field: Annotated[
        int,
        declare(
            "Size of one header; more is answered with 431.",
            GENERATION,
            ge=256,
            le=1 * MIB,
            unit=Unit.SIZE,
        ),
    ] = 16 * KIB
    max_fields: Annotated[
        int,
        declare(
            "Number of headers; more is answered with 431.",
            GENERATION,
            ge=1,
            le=10_000,
        ),
    ] = 100
    max_header: Annotated[
        int,
        declare(
            "Size of the request line and all headers together; more is answered with 431.",
            GENERATION,
            ge=1 * KIB,
            le=1 * MIB,
            unit=Unit.SIZE,
        ),
    ] = 32 * KIB
    max_body: Annotated[
        int,
        declare(
            "Size of a request's body; more is answered with 413.",
            GENERATION,
            ge=0,
            le=1024 * GIB,
            unit=Unit.SIZE,
        ),
    ] = 1 * GIB
    spool: Annotated[
        int,
        declare(
            "A request body above this size waits in a temporary file instead of in memory.",
            GENERATION,
            ge=0,
            le=1 * GIB,
            unit=Unit.SIZE,
            kinds=SPOOLING_KINDS,
        ),
    ] = 256 * KIB
    spool_total: Annotated[
        int,
        declare(
            "Size of the temporary files with request bodies of one worker together; a body that finds "
            "no room is answered with 503. 0: four times http.max_body.",
            GENERATION,
            ge=0,
            le=1024 * GIB,
            unit=Unit.SIZE,
            kinds=SPOOLING_KINDS,
        ),
    ] = 0
    connections: Annotated[
        int,
        declare(
            "Open connections per worker; a worker that holds this many accepts no more. For kind "
            "stream: those whose TLS handshake or PROXY header is not complete.",
            GENERATION,
            ge=1,
            le=1_000_000,
            kinds=ALL_KINDS,
        ),
    ] = 10_000
    server: Annotated[
        str,
        declare("Value of the Server header. Empty: the header is not sent.", GENERATION),
    ] = "preforkd"
    healthy: Annotated[
        str,
        declare(
            "A path, for example /-/healthy, that the worker answers itself with 200 as long as it "
            "lives. Empty: none.",
            GENERATION,
        ),
    ] = ""
    ready: Annotated[
        str,
        declare(
            "A path, for example /-/ready, that the worker answers itself with 200, and with 503 as "
            "soon as it is to leave or timeouts.drain_notice runs. Empty: none.",
            GENERATION,
        ),
    ] = ""
    answer_spool: Annotated[
        int,
        declare(
            "An answer that the application makes in parts, faster than the client reads it, waits in "
            "memory up to 1 MiB, then in a temporary file up to this size; beyond that the application "
            "waits for the client. When all answers of a worker together take 64 MiB of memory, whole "
            "ones wait in files, too, of sixteen times this size together.",
            GENERATION,
            ge=0,
            le=1024 * GIB,
            unit=Unit.SIZE,
            kinds=SPOOLING_KINDS,
        ),
    ] = 64 * MIB


class TlsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificate and key for listeners with ``tls: true``; read anew by each generation of workers."""

    certificate: Annotated[
        str,
        declare(
            "Path of the certificate with its chain, in PEM format; or {credential: NAME}.",
            GENERATION,
        ),
    ] = ""
    key: Annotated[
        str,
        declare(
            "Path of the key, in PEM format; or {credential: NAME}. Empty: it is in the certificate's "
            "file.",
            GENERATION,
        ),
    ] = ""


class ProxySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The proxies in front: whose word about a client counts."""

    trusted: Annotated[
        tuple[str, ...],
        declare(
            "Addresses and networks of the proxies, for example [127.0.0.1, 10.0.0.0/8]; unix: all "
            "who come by a Unix socket.",
            GENERATION,
        ),
    ] = ()
    headers: Annotated[
        Literal["off", "forwarded", "x-forwarded"],
        declare(
            "Which headers of a trusted proxy name the client: Forwarded, or X-Forwarded-For and "
            "X-Forwarded-Proto; the application does not see those of anybody else. off: they are "
            "headers like others.",
            GENERATION,
            kinds=HTTP_KINDS,
        ),
    ] = "off"


class AccessLogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line for each request."""

    KINDS: ClassVar[tuple[str, ...]] = HTTP_KINDS

    target: Annotated[
        str,
        declare(
            "Where to: off, journal (with fields), stderr, or the path of a file, which is opened anew "
            "by the workers of each generation.",
            GENERATION,
        ),
    ] = "off"
    format: Annotated[
        Literal["combined", "json"],
        declare("How a line on standard error or in a file is written.", GENERATION),
    ] = "combined"
