"""The sections http, proxy and access_log: what the HTTP workers do with a connection."""

from typing import Annotated, ClassVar, Literal

from msgspec import Struct

from preforkd.config.declaration import GENERATION, GIB, HOUR, KIB, MIB, Unit, declare
from preforkd.config.kinds import ALL_KINDS, HTTP_KINDS, SPOOLING_KINDS


class HttpSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """HTTP connections of kinds wsgi and asgi."""

    KINDS: ClassVar[tuple[str, ...]] = HTTP_KINDS

    keep_alive: Annotated[
        float,
        declare(
            "Time for which an idle connection stays open for another request. 0: closed after each "
            "response.",
            GENERATION,
            ge=0.0,
            le=HOUR,
            unit=Unit.DURATION,
        ),
    ] = 15.0
    header_timeout: Annotated[
        float,
        declare(
            "Longest time from the first byte of a request until the end of its headers. Also the longest "
            "time for a TLS handshake and for the header of the PROXY protocol, with kind stream as well. "
            "At the limit the connection is closed.",
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
            "Longest pause between two parts of a request's body, and between two reads of a response by "
            "the client. At the limit the connection is closed.",
            GENERATION,
            ge=0.1,
            le=HOUR,
            unit=Unit.DURATION,
        ),
    ] = 30.0
    min_rate: Annotated[
        int,
        declare(
            "Lowest rate, in bytes per second, at which a client must send a request's body and read a "
            "response, averaged over each body_timeout. A slower connection is closed. 0: no limit.",
            GENERATION,
            ge=0,
            le=1 * GIB,
            unit=Unit.SIZE,
        ),
    ] = 256
    max_requests: Annotated[
        int,
        declare(
            "Requests after which a connection is closed. 0: no limit.",
            GENERATION,
            ge=0,
            le=1_000_000_000,
        ),
    ] = 0
    max_line: Annotated[
        int,
        declare(
            "Largest size of the request line; a longer one is answered with 414.",
            GENERATION,
            ge=256,
            le=1 * MIB,
            unit=Unit.SIZE,
        ),
    ] = 8 * KIB
    max_field: Annotated[
        int,
        declare(
            "Largest size of one header; a larger one is answered with 431.",
            GENERATION,
            ge=256,
            le=1 * MIB,
            unit=Unit.SIZE,
        ),
    ] = 16 * KIB
    max_fields: Annotated[
        int,
        declare(
            "Largest number of headers; more are answered with 431.",
            GENERATION,
            ge=1,
            le=10_000,
        ),
    ] = 100
    max_header: Annotated[
        int,
        declare(
            "Largest total size of the request line and the headers; more is answered with 431.",
            GENERATION,
            ge=1 * KIB,
            le=1 * MIB,
            unit=Unit.SIZE,
        ),
    ] = 32 * KIB
    max_body: Annotated[
        int,
        declare(
            "Largest size of a request's body; a larger one is answered with 413. 0: only requests without "
            "a body.",
            GENERATION,
            ge=0,
            le=1024 * GIB,
            unit=Unit.SIZE,
        ),
    ] = 1 * GIB
    spool: Annotated[
        int,
        declare(
            "Size above which a request's body is kept in a temporary file instead of in memory.",
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
            "Largest total size of the temporary files in which one worker keeps request bodies; a body "
            "that exceeds it is answered with 503. 0: four times http.max_body.",
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
            "Largest number of open connections of a worker; at the limit it accepts no more. For kind "
            "stream: of connections whose TLS handshake or PROXY header is not complete.",
            GENERATION,
            ge=1,
            le=1_000_000,
            kinds=ALL_KINDS,
        ),
    ] = 10_000
    prefix: Annotated[
        str,
        declare(
            "Path below which the application is mounted, for example /shop: SCRIPT_NAME or root_path. A "
            "proxy may strip it from the path of a request or not. Empty: the root.",
            GENERATION,
        ),
    ] = ""
    server: Annotated[
        str,
        declare("Value of the Server header. Empty: the header is not sent.", GENERATION),
    ] = "preforkd"
    healthy: Annotated[
        str,
        declare(
            "Path, for example /-/healthy, that the worker answers itself with 200 as long as it runs. "
            "Empty: none.",
            GENERATION,
        ),
    ] = ""
    ready: Annotated[
        str,
        declare(
            "Path, for example /-/ready, that the worker answers itself with 200, and with 503 once it "
            "drains or timeouts.drain_notice has begun. Empty: none.",
            GENERATION,
        ),
    ] = ""
    answer_spool: Annotated[
        int,
        declare(
            "Largest size of the temporary file for a response that the application generates in parts, "
            "faster than the client reads it. Up to 1 MiB of it waits in memory; at the limit the "
            "application waits for the client. Once the responses of a worker take 64 MiB of memory, "
            "complete responses wait in files as well, up to sixteen times this size in total.",
            GENERATION,
            ge=0,
            le=1024 * GIB,
            unit=Unit.SIZE,
            kinds=SPOOLING_KINDS,
        ),
    ] = 64 * MIB


PARAMETERS = ("for", "proto", "host", "port", "prefix")
"""What ``proxy.parameters`` may name; the first three exist in RFC 7239."""


class ProxySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Reverse proxies, and what they may declare about a client."""

    trusted: Annotated[
        tuple[str, ...],
        declare(
            "Addresses and networks of the trusted proxies, for example [127.0.0.1, 10.0.0.0/8]; unix: "
            "every peer on a Unix socket.",
            GENERATION,
        ),
    ] = ()
    headers: Annotated[
        Literal["off", "forwarded", "x-forwarded"],
        declare(
            "Headers by which a trusted proxy names the client: Forwarded, or X-Forwarded-For, "
            "X-Forwarded-Proto and so on; from other peers, these are removed. off: they have no special "
            "meaning.",
            GENERATION,
            kinds=HTTP_KINDS,
        ),
    ] = "off"
    parameters: Annotated[
        tuple[str, ...],
        declare(
            "Parameters that are taken from these headers: for, proto, host; with X-Forwarded-Port and "
            "X-Forwarded-Prefix also port and prefix. Name only those that the proxy itself sets: it passes "
            "on what a client sent as any other.",
            GENERATION,
            kinds=HTTP_KINDS,
        ),
    ] = ("for", "proto")


class AccessLogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The access log: one line for each request."""

    KINDS: ClassVar[tuple[str, ...]] = HTTP_KINDS

    target: Annotated[
        str,
        declare(
            "Destination: off, journal (with fields), stderr, or the path of a file, which each generation "
            "of workers opens again.",
            GENERATION,
        ),
    ] = "off"
    format: Annotated[
        Literal["combined", "json"],
        declare("Format of the lines on standard error or in a file.", GENERATION),
    ] = "combined"
