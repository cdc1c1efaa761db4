"""Every setting, declared once: type, default, bounds, help, and what a reload does with it.

The YAML reader, ``etc/preforkd.yaml``, the JSON Schema, the reference table and the command line
derive from these structs.  They need nothing but msgspec, so that the zygote and the workers
can hold them without the YAML reader.
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from preforkd.config.kinds import ALL_KINDS, HTTP_KINDS, SPOOLING_KINDS, THREADED_KINDS


class OnReload(StrEnum):
    """What a reload does with a changed setting."""

    LIVE = "live"
    """The running master takes the new value; no worker is touched."""
    GENERATION = "generation"
    """A new generation of workers starts with the new value; the old one drains."""
    RESTART = "restart"
    """Only ``systemctl restart`` changes it; a reload says so and keeps the old value."""


class Kind(StrEnum):
    """How a scalar is written, where its Python type does not say it."""

    DURATION = "duration"
    """``30s``, ``1min 30s``, ``500ms``; a bare number is seconds (systemd.time(7)). Held as float."""
    SIZE = "size"
    """``256M``, ``64K``; a bare number is bytes; the base is 1024. Held as int."""
    REQUESTS = "requests"
    """``2000 requests``, or a bare number. Held as int."""
    MODE = "mode"
    """Octal permission bits, ``0660`` or ``660``. Held as int."""


def _meta(  # the one place that knows how our own facts travel in msgspec's
    help_: str,
    on_reload: OnReload,
    *,
    ge: float | None = None,
    le: float | None = None,
    kind: Kind | None = None,
    kinds: tuple[str, ...] | None = None,
) -> Meta:
    extra: dict[str, object] = {"on_reload": on_reload.value}
    if kind is not None:
        extra["kind"] = kind.value
    if kinds is not None:
        extra["kinds"] = kinds
    return Meta(description=help_, ge=ge, le=le, extra=extra)


Count = Annotated[int, Meta(ge=1, le=1024)]
"""A number of worker processes."""

LIVE, GENERATION, RESTART = OnReload.LIVE, OnReload.GENERATION, OnReload.RESTART

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class AppSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The application that the workers run."""

    target: Annotated[
        str,
        _meta(
            "What to run, as KIND:MODULE:ATTRIBUTE. KIND is stream, wsgi or asgi; ATTRIBUTE may be a "
            "dotted path, or a call without arguments for a factory: wsgi:mysite:create_app().",
            GENERATION,
        ),
    ] = "stream:preforkd.apps.demo:greet"
    directory: Annotated[
        str,
        _meta(
            "The application's directory: current directory of the workers and first entry of the "
            "module search path. A symbolic link in it is followed anew at each reload. Empty: where "
            "preforkd was started; a relative path begins there. Through a link ($PWD of a shell) that is "
            "found anew as well; under systemd, which sets no $PWD, write the whole path.",
            GENERATION,
        ),
    ] = ""
    python: Annotated[
        str,
        _meta(
            "The interpreter that loads the application, for example "
            "/srv/site/.venv/bin/python. Empty: the one that runs preforkd.",
            GENERATION,
        ),
    ] = ""
    environment: Annotated[
        dict[str, str],
        _meta("Environment variables for the application, added to preforkd's own.", GENERATION),
    ] = {}
    warm_up: Annotated[
        tuple[str, ...],
        _meta(
            "What is done once, before the first worker is forked, so that all workers share what it "
            "loads: functions (MODULE:FUNCTION), and for kind wsgi paths that are requested of the "
            "application (/admin/login/), or URLs where the host or the scheme matters "
            "(https://shop.example/).",
            GENERATION,
        ),
    ] = ()
    warm_up_required: Annotated[
        bool,
        _meta(
            "What fails in warm_up ends the start (or the reload). false: it is told as a warning.",
            GENERATION,
        ),
    ] = False
    check: Annotated[
        str,
        _meta(
            "A path, for example /health, or a URL where the host matters (http://shop.example/health): "
            "at the start and at each reload one worker is asked for it (GET) before any of them serves. "
            "An answer of 400 or above, or none within timeouts.boot, refuses the start or the reload. "
            "That worker then ends. Empty: none.",
            GENERATION,
            kinds=HTTP_KINDS,
        ),
    ] = ""


class ListenSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One listening socket: bound by preforkd, or passed by systemd and known by its name."""

    address: Annotated[
        str,
        _meta(
            "host:port, [v6]:port, :port (every address), or unix:/path. Empty with a name: the socket "
            "is the one that systemd passes under this name.",
            GENERATION,
        ),
    ] = ""
    name: Annotated[
        str,
        _meta(
            "The socket's name, in logs and for the application; for a socket from systemd its "
            "FileDescriptorName=. Empty: the address.",
            GENERATION,
        ),
    ] = ""
    backlog: Annotated[
        int,
        _meta(
            "Connections that the kernel queues before a worker takes them; the kernel caps it at "
            "net.core.somaxconn.",
            GENERATION,
            ge=1,
            le=65535,
        ),
    ] = 1024
    mode: Annotated[
        int,
        _meta("Permissions of a Unix socket.", GENERATION, ge=0, le=0o777, kind=Kind.MODE),
    ] = 0o666
    owner: Annotated[str, _meta("User that owns a Unix socket. Empty: ours.", GENERATION)] = ""
    group: Annotated[str, _meta("Group that owns a Unix socket. Empty: ours.", GENERATION)] = ""
    tls: Annotated[
        bool, _meta("Speak TLS here, with the certificate of the section tls.", GENERATION)
    ] = False
    proxy_protocol: Annotated[
        bool,
        _meta(
            "Every connection begins with the PROXY protocol's header, version 1 or 2. Peers that are "
            "not in proxy.trusted are refused.",
            GENERATION,
        ),
    ] = False

    @property
    def has_opening(self) -> bool:
        """Whether a TLS handshake or the PROXY protocol's header precedes what the client sends."""
        return self.tls or self.proxy_protocol


class WorkersSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The worker processes. A number instead of the section is its count: ``workers: 4``.

    With ``min`` and ``max`` the pool is elastic.
    """

    SHORT: ClassVar[str] = "count"

    count: Annotated[
        Count | Literal["auto"],
        _meta(
            "Number of worker processes. auto: two for each CPU that preforkd may use, at least 4.",
            LIVE,
        ),
    ] = "auto"
    min: Annotated[
        int,
        _meta(
            "With max: the pool begins with so many workers and never has fewer. 0: one.",
            LIVE,
            ge=0,
            le=1024,
        ),
    ] = 0
    max: Annotated[
        int,
        _meta(
            "The pool grows up to so many workers while connections wait and no worker is idle, and "
            "shrinks slowly when they are not needed. 0: it has a fixed size, that of count.",
            LIVE,
            ge=0,
            le=1024,
        ),
    ] = 0
    spare: Annotated[
        int,
        _meta(
            "Workers of an elastic pool that are kept idle beside those that are busy.",
            LIVE,
            ge=0,
            le=1024,
        ),
    ] = 0
    threads: Annotated[
        int,
        _meta(
            "Threads of each worker that call a WSGI application, for one that waits on others most "
            "of the time and is safe to be called from several threads.",
            GENERATION,
            ge=1,
            le=512,
            kinds=THREADED_KINDS,
        ),
    ] = 1


class TimeoutsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long each step of a process's life may take."""

    start: Annotated[
        float,
        _meta(
            "From the start of a generation until its workers are ready: loading the application and "
            "starting the workers. A reload that takes longer is given up, and the old generation "
            "serves on.",
            LIVE,
            ge=0.1,
            le=HOUR,
            kind=Kind.DURATION,
        ),
    ] = 60.0
    boot: Annotated[
        float,
        _meta(
            "From the fork of one worker until it accepts connections.",
            LIVE,
            ge=0.1,
            le=HOUR,
            kind=Kind.DURATION,
        ),
    ] = 30.0
    drain: Annotated[
        float,
        _meta(
            "How long a worker that is to leave may go on with the request that it is serving, before "
            "it is killed.",
            LIVE,
            ge=0.0,
            le=DAY,
            kind=Kind.DURATION,
        ),
    ] = 30.0
    request: Annotated[
        float,
        _meta(
            "How long one request may be with the application. Then the worker's stacks are logged with "
            "the request, the worker is killed and another takes its place. 0: for ever.",
            LIVE,
            ge=0.0,
            le=DAY,
            kind=Kind.DURATION,
        ),
    ] = 0.0
    slow: Annotated[
        float,
        _meta(
            "After how long the stacks of the worker that has a request are logged, once for each "
            "request, and nothing else happens. 0: never.",
            LIVE,
            ge=0.0,
            le=DAY,
            kind=Kind.DURATION,
        ),
    ] = 0.0
    heartbeat: Annotated[
        float,
        _meta(
            "How long a worker's loop may stand still while connections wait and no request explains "
            "it. Then the worker's stacks are logged, the worker is killed and another takes its place. "
            "A request explains it with kind wsgi and stream, unless there are workers.threads; an "
            "asyncio loop has to turn beside its requests. 0: for ever.",
            LIVE,
            ge=0.0,
            le=DAY,
            kind=Kind.DURATION,
        ),
    ] = 30.0
    drain_notice: Annotated[
        float,
        _meta(
            "Before the service stops: how long it goes on serving while http.ready already answers "
            "503, so that a load balancer sees it and sends no more. 0: it stops at once.",
            LIVE,
            ge=0.0,
            le=HOUR,
            kind=Kind.DURATION,
            kinds=HTTP_KINDS,
        ),
    ] = 0.0


class WorkerLimitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of each worker. One that reaches a limit is replaced: another serves before it leaves.

    Each worker has a limit of its own, between four fifths of what is written and all of it, so that they do
    not leave together.
    """

    requests: Annotated[
        int,
        _meta(
            "Requests (or connections of a stream handler). 0: any number.", LIVE, ge=0, le=10**12
        ),
    ] = 0
    age: Annotated[
        float,
        _meta(
            "Time since it began to serve. 0: any.", LIVE, ge=0.0, le=365 * DAY, kind=Kind.DURATION
        ),
    ] = 0.0
    cpu: Annotated[
        float,
        _meta("CPU time since its fork. 0: any.", LIVE, ge=0.0, le=365 * DAY, kind=Kind.DURATION),
    ] = 0.0
    descriptors: Annotated[
        int,
        _meta(
            "Open file descriptors beside its connections. 0: nine tenths of what the system allows it.",
            LIVE,
            ge=0,
            le=1_000_000,
        ),
    ] = 0


class ReloadSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a reload goes from one generation to the next."""

    surge: Annotated[
        Count | Literal["all"],
        _meta(
            "How many workers of the new generation may run beside the old ones. all: the whole new "
            "generation is ready before the first old worker leaves. A number saves memory: the "
            "generations change places in steps of this size.",
            LIVE,
        ),
    ] = "all"


class ReforkSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Forking workers anew from a worker that is warm. A number instead of the section is ``after``."""

    SHORT: ClassVar[str] = "after"

    after: Annotated[
        int,
        _meta(
            "Requests that a worker has answered when it forks the next zygote, so that the workers "
            "share what was loaded and built meanwhile. 0: never.",
            LIVE,
            ge=0,
            le=1_000_000_000,
            kind=Kind.REQUESTS,
        ),
    ] = 0


class MemorySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The workers' memory."""

    limit: Annotated[
        int,
        _meta(
            "Private memory (USS) of one worker above which it is replaced. Pages that it shares with "
            "the others do not count. 0: no limit.",
            LIVE,
            ge=0,
            le=1024 * GIB,
            kind=Kind.SIZE,
        ),
    ] = 0
    refork: ReforkSettings = ReforkSettings()
    immortal: Annotated[
        bool,
        _meta(
            "Make all that is loaded before the first fork immortal, so that the workers do not write "
            "to shared memory by merely using it (CPython 3.12 and 3.13). What is loaded by then is "
            "never freed. The requests of app.warm_up are sent twice, and the code that they run is "
            "laid side by side.",
            GENERATION,
        ),
    ] = False


class HttpSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP worker."""

    KINDS: ClassVar[tuple[str, ...]] = HTTP_KINDS

    keep_alive: Annotated[
        float,
        _meta(
            "How long an idle connection stays open for another request. 0: closed after each answer.",
            GENERATION,
            ge=0.0,
            le=HOUR,
            kind=Kind.DURATION,
        ),
    ] = 15.0
    header_timeout: Annotated[
        float,
        _meta(
            "From the first byte of a request until the end of its headers; also the time that a TLS "
            "handshake and the PROXY protocol's header may take, for kind stream as well.",
            GENERATION,
            ge=0.1,
            le=HOUR,
            kind=Kind.DURATION,
            kinds=ALL_KINDS,
        ),
    ] = 15.0
    body_timeout: Annotated[
        float,
        _meta(
            "The longest pause between two parts of a request's body, or while a client reads an answer.",
            GENERATION,
            ge=0.1,
            le=HOUR,
            kind=Kind.DURATION,
        ),
    ] = 30.0
    min_rate: Annotated[
        int,
        _meta(
            "Bytes per second that a request's body must bring, and that the client must read of an "
            "answer, on the average of each body_timeout. 0: as slow as it likes.",
            GENERATION,
            ge=0,
            le=1 * GIB,
            kind=Kind.SIZE,
        ),
    ] = 256
    max_requests: Annotated[
        int,
        _meta(
            "Requests that one connection may bring before it is closed. 0: any number.",
            GENERATION,
            ge=0,
            le=1_000_000_000,
        ),
    ] = 0
    max_line: Annotated[
        int,
        _meta(
            "Size of the request line; more is answered with 414.",
            GENERATION,
            ge=256,
            le=1 * MIB,
            kind=Kind.SIZE,
        ),
    ] = 8 * KIB
    max_field: Annotated[
        int,
        _meta(
            "Size of one header; more is answered with 431.",
            GENERATION,
            ge=256,
            le=1 * MIB,
            kind=Kind.SIZE,
        ),
    ] = 16 * KIB
    max_fields: Annotated[
        int,
        _meta(
            "Number of headers; more is answered with 431.",
            GENERATION,
            ge=1,
            le=10_000,
        ),
    ] = 100
    max_header: Annotated[
        int,
        _meta(
            "Size of the request line and all headers together; more is answered with 431.",
            GENERATION,
            ge=1 * KIB,
            le=1 * MIB,
            kind=Kind.SIZE,
        ),
    ] = 32 * KIB
    max_body: Annotated[
        int,
        _meta(
            "Size of a request's body; more is answered with 413.",
            GENERATION,
            ge=0,
            le=1024 * GIB,
            kind=Kind.SIZE,
        ),
    ] = 1 * GIB
    spool: Annotated[
        int,
        _meta(
            "A request body above this size waits in a temporary file instead of in memory.",
            GENERATION,
            ge=0,
            le=1 * GIB,
            kind=Kind.SIZE,
            kinds=SPOOLING_KINDS,
        ),
    ] = 256 * KIB
    spool_total: Annotated[
        int,
        _meta(
            "Size of the temporary files with request bodies of one worker together; a body that finds "
            "no room is answered with 503. 0: four times http.max_body.",
            GENERATION,
            ge=0,
            le=1024 * GIB,
            kind=Kind.SIZE,
            kinds=SPOOLING_KINDS,
        ),
    ] = 0
    connections: Annotated[
        int,
        _meta(
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
        _meta("Value of the Server header. Empty: the header is not sent.", GENERATION),
    ] = "preforkd"
    healthy: Annotated[
        str,
        _meta(
            "A path, for example /-/healthy, that the worker answers itself with 200 as long as it "
            "lives. Empty: none.",
            GENERATION,
        ),
    ] = ""
    ready: Annotated[
        str,
        _meta(
            "A path, for example /-/ready, that the worker answers itself with 200, and with 503 as "
            "soon as it is to leave or timeouts.drain_notice runs. Empty: none.",
            GENERATION,
        ),
    ] = ""
    answer_spool: Annotated[
        int,
        _meta(
            "An answer that the application makes in parts, faster than the client reads it, waits in "
            "memory up to 1 MiB, then in a temporary file up to this size; beyond that the application "
            "waits for the client. When all answers of a worker together take 64 MiB of memory, whole "
            "ones wait in files, too, of sixteen times this size together.",
            GENERATION,
            ge=0,
            le=1024 * GIB,
            kind=Kind.SIZE,
            kinds=SPOOLING_KINDS,
        ),
    ] = 64 * MIB


class TlsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificate and key for listeners with ``tls: true``; read anew by each generation of workers."""

    certificate: Annotated[
        str,
        _meta(
            "Path of the certificate with its chain, in PEM format; or {credential: NAME}.",
            GENERATION,
        ),
    ] = ""
    key: Annotated[
        str,
        _meta(
            "Path of the key, in PEM format; or {credential: NAME}. Empty: it is in the certificate's "
            "file.",
            GENERATION,
        ),
    ] = ""


class ProxySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The proxies in front: whose word about a client counts."""

    trusted: Annotated[
        tuple[str, ...],
        _meta(
            "Addresses and networks of the proxies, for example [127.0.0.1, 10.0.0.0/8]; unix: all "
            "who come by a Unix socket.",
            GENERATION,
        ),
    ] = ()
    headers: Annotated[
        Literal["off", "forwarded", "x-forwarded"],
        _meta(
            "Which headers of a trusted proxy name the client: Forwarded, or X-Forwarded-For and "
            "X-Forwarded-Proto; the application does not see those of anybody else. off: they are "
            "headers like others.",
            GENERATION,
            kinds=HTTP_KINDS,
        ),
    ] = "off"


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, and where to."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _meta("The least important messages that are logged.", LIVE),
    ] = "info"
    target: Annotated[
        Literal["auto", "journal", "stderr"],
        _meta(
            "auto: native journal fields when standard error is the journal, else lines on standard "
            "error.",
            RESTART,
        ),
    ] = "auto"


class AccessLogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line for each request."""

    KINDS: ClassVar[tuple[str, ...]] = HTTP_KINDS

    target: Annotated[
        str,
        _meta(
            "Where to: off, journal (with fields), stderr, or the path of a file, which is opened anew "
            "by the workers of each generation.",
            GENERATION,
        ),
    ] = "off"
    format: Annotated[
        Literal["combined", "json"],
        _meta("How a line on standard error or in a file is written.", GENERATION),
    ] = "combined"


class ControlSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control socket, which preforkctl talks to."""

    socket: Annotated[
        str,
        _meta(
            "Path of the socket; off: none. Empty: io.preforkd.Manager in $RUNTIME_DIRECTORY, which "
            "systemd sets; else, with the pid behind that name, in preforkd/ below the user's runtime "
            "directory.",
            RESTART,
        ),
    ] = ""
    mode: Annotated[
        int,
        _meta(
            "Permissions of the socket. Who may connect may look; who may not command either sees "
            "requests without their query.",
            LIVE,
            ge=0,
            le=0o777,
            kind=Kind.MODE,
        ),
    ] = 0o660
    group: Annotated[
        str,
        _meta(
            "Members of this group may connect and give commands too. Empty: only root and the user that "
            "preforkd runs as.",
            LIVE,
        ),
    ] = ""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of /etc/preforkd.yaml."""

    app: AppSettings = AppSettings()
    hooks: Annotated[
        str,
        _meta(
            "An object of the application's, as MODULE:ATTRIBUTE (or MODULE: the module itself), whose "
            "functions are called at the moments of a process's life: zygote_loaded, after_fork, "
            "before_refork, worker_started, worker_leaving, request_begun, request_ended. Empty: none.",
            GENERATION,
        ),
    ] = ""
    listen: Annotated[
        tuple[ListenSettings, ...],
        _meta(
            "The sockets to listen on: an address, or a list of addresses or mappings. Sockets that "
            "systemd passes come first: where it passes any, only those are served. An entry here with a "
            "name says that this one must be among them, one without a name is that of the passed "
            "socket with its address.",
            GENERATION,
        ),
    ] = (ListenSettings(address="127.0.0.1:8080"),)
    workers: WorkersSettings = WorkersSettings()
    limits: WorkerLimitSettings = WorkerLimitSettings()
    idle_exit: Annotated[
        float,
        _meta(
            "With sockets from systemd only: leave after so long without a request or an open "
            "connection; the next connection starts the service again, and nothing is lost. 0: never.",
            LIVE,
            ge=0.0,
            le=DAY,
            kind=Kind.DURATION,
        ),
    ] = 0.0
    timeouts: TimeoutsSettings = TimeoutsSettings()
    reload: ReloadSettings = ReloadSettings()
    memory: MemorySettings = MemorySettings()
    http: HttpSettings = HttpSettings()
    tls: TlsSettings = TlsSettings()
    proxy: ProxySettings = ProxySettings()
    log: LogSettings = LogSettings()
    access_log: AccessLogSettings = AccessLogSettings()
    control: ControlSettings = ControlSettings()
