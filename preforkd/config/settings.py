"""Every setting, declared once: type, default, bounds, help, and what a reload does with it.

The YAML reader, ``etc/preforkd.yaml``, the JSON Schema, preforkd.yaml(5) and the command line derive from these
structs. They need nothing but msgspec, so that the zygote and the workers can hold them without the YAML
reader. All of them are imported from here, wherever they are declared.
"""

from typing import Annotated, Literal

from msgspec import Struct

from preforkd.config.declaration import DAY, GENERATION, LIVE, RESTART, OnReload, Unit, declare
from preforkd.config.kinds import HTTP_KINDS, kind_of
from preforkd.config.settings_http import (
    AccessLogSettings,
    HttpSettings,
    ProxySettings,
)
from preforkd.config.settings_pool import (
    MemorySettings,
    ReforkSettings,
    ReloadSettings,
    TimeoutsSettings,
    WorkerLimitSettings,
    WorkersSettings,
)
from preforkd.config.settings_tls import TlsSettings
from preforkd.config.settings_websocket import WebSocketSettings

__all__ = [
    "AccessLogSettings",
    "AppSettings",
    "ControlSettings",
    "HttpSettings",
    "ListenSettings",
    "LogSettings",
    "MemorySettings",
    "OnReload",
    "ProxySettings",
    "ReforkSettings",
    "ReloadSettings",
    "Settings",
    "TimeoutsSettings",
    "TlsSettings",
    "WebSocketSettings",
    "WorkerLimitSettings",
    "WorkersSettings",
]


class AppSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The application that the workers run."""

    target: Annotated[
        str,
        declare(
            "Application to run, as KIND:MODULE:ATTRIBUTE. KIND is stream, wsgi or asgi. ATTRIBUTE may be a "
            "dotted path, or call a factory, whose arguments are literals of Python: "
            'wsgi:mysite:create_app(), wsgi:pypiserver:app(root="/srv/packages").',
            GENERATION,
        ),
    ] = "stream:preforkd.apps.demo:greet"
    directory: Annotated[
        str,
        declare(
            "Directory of the application: the current directory of the workers and the first entry of the "
            "module search path. Symbolic links in it are resolved again at each reload. Empty: the "
            "directory in which preforkd was started; a relative path starts there. That directory is "
            "resolved again as well if $PWD names it through a symbolic link, as a shell sets it; systemd "
            "sets no $PWD: use an absolute path there.",
            GENERATION,
        ),
    ] = ""
    python: Annotated[
        str,
        declare(
            "Python interpreter that loads the application, 3.11 or newer, or the directory of its virtual "
            "environment: /srv/site/.venv. Empty: the interpreter that runs preforkd.",
            GENERATION,
        ),
    ] = ""
    preload: Annotated[
        bool,
        declare(
            "Whether the application is loaded once, before the workers are forked, which then share its "
            "memory. false: each worker loads it itself, so that threads, event loops and connections that "
            "it makes while it is imported work in the workers. The start of each worker then takes as long "
            "as the import, within timeouts.boot; the workers share no memory of the application; a worker "
            "that replaces another one loads the files as they are by then; warm_up runs in each worker; "
            "memory.immortal and refork are refused.",
            GENERATION,
        ),
    ] = True
    watch: Annotated[
        bool,
        declare(
            "For development: reload when a file below the application's directory, or the configuration, "
            "changes. Hidden directories, virtual environments, caches, logs, databases and what "
            "editors write are ignored; symbolic links to directories are not followed.",
            LIVE,
        ),
    ] = False
    environment: Annotated[
        dict[str, str],
        declare(
            "Environment variables of the application, added to those of preforkd.", GENERATION
        ),
    ] = {}
    warm_up: Annotated[
        tuple[str, ...],
        declare(
            "Work to do once, before the first worker is forked, so that all workers share the memory that "
            "it fills: functions (MODULE:FUNCTION) and, for kind wsgi, paths to request from the "
            "application (/admin/login/), or URLs where the host or the scheme matters "
            "(https://shop.example/).",
            GENERATION,
        ),
    ] = ()
    warm_up_required: Annotated[
        bool,
        declare(
            "Whether a failed entry of warm_up fails the start or the reload. false: the failure is logged "
            "as a warning.",
            GENERATION,
        ),
    ] = False
    check: Annotated[
        str,
        declare(
            "Path of a trial request, for example /health, or a URL where the host matters "
            "(http://shop.example/health). At the start and at each reload, one worker answers it (GET) "
            "before any worker serves; that worker then exits. A status of 400 or above, or no response "
            "within timeouts.boot, fails the start or the reload. Empty: no trial request.",
            GENERATION,
            kinds=HTTP_KINDS,
        ),
    ] = ""


class ListenSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One listening socket: bound by preforkd, or passed by systemd and identified by its name."""

    address: Annotated[
        str,
        declare(
            "host:port, [v6]:port, :port (all addresses), or unix:/path. Empty, with a name: the socket "
            "that systemd passes under this name.",
            GENERATION,
        ),
    ] = ""
    name: Annotated[
        str,
        declare(
            "Name of the socket, in logs and for the application; for a socket from systemd its "
            "FileDescriptorName=. Empty: the address.",
            GENERATION,
        ),
    ] = ""
    backlog: Annotated[
        int,
        declare(
            "Connections that the kernel queues until a worker accepts them; the kernel caps it at "
            "net.core.somaxconn.",
            GENERATION,
            ge=1,
            le=65535,
        ),
    ] = 1024
    mode: Annotated[
        int,
        declare(
            "Permissions of a Unix socket, in octal digits.",
            GENERATION,
            ge=0,
            le=0o777,
            unit=Unit.MODE,
        ),
    ] = 0o666
    owner: Annotated[
        str,
        declare("User that owns a Unix socket. Empty: the user that preforkd runs as.", GENERATION),
    ] = ""
    group: Annotated[
        str,
        declare(
            "Group that owns a Unix socket. Empty: the group that preforkd runs as.", GENERATION
        ),
    ] = ""
    tls: Annotated[
        bool,
        declare("Speak TLS on this socket, with the certificate of the section tls.", GENERATION),
    ] = False
    proxy_protocol: Annotated[
        bool,
        declare(
            "Expect the header of the PROXY protocol, version 1 or 2, at the start of each connection. "
            "Connections from peers that are not in proxy.trusted are refused.",
            GENERATION,
        ),
    ] = False

    @property
    def has_opening(self) -> bool:
        """Whether a TLS handshake or the PROXY protocol's header precedes what the client sends."""
        return self.tls or self.proxy_protocol


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        declare("Lowest level of the messages that are logged.", LIVE),
    ] = "info"
    target: Annotated[
        Literal["auto", "journal", "stderr"],
        declare(
            "Destination. auto: the journal, with its fields, if standard error is connected to it; else "
            "lines on standard error.",
            RESTART,
        ),
    ] = "auto"


class ControlSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control socket, to which preforkctl connects."""

    socket: Annotated[
        str,
        declare(
            "Path of the socket; off: none. Empty: io.preforkd.Manager in $RUNTIME_DIRECTORY, which systemd "
            "sets; without it, io.preforkd.Manager.PID in preforkd/ below the user's runtime directory.",
            RESTART,
        ),
    ] = ""
    mode: Annotated[
        int,
        declare(
            "Permissions of the socket, in octal digits. A user who may connect may query the service; "
            "requests are shown without their query unless the user may also give commands.",
            LIVE,
            ge=0,
            le=0o777,
            unit=Unit.MODE,
        ),
    ] = 0o660
    group: Annotated[
        str,
        declare(
            "Group whose members may connect and give commands. Empty: only root and the user that preforkd "
            "runs as.",
            LIVE,
        ),
    ] = ""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of /etc/preforkd.yaml."""

    app: AppSettings = AppSettings()
    hooks: Annotated[
        str,
        declare(
            "Object of the application, as MODULE:ATTRIBUTE (or MODULE: the module itself), whose functions "
            "are called at these points of a process's life: zygote_loaded, after_fork, before_refork, "
            "worker_started, worker_leaving, request_begun, request_ended. Empty: none.",
            GENERATION,
        ),
    ] = ""
    listen: Annotated[
        tuple[ListenSettings, ...],
        declare(
            "Sockets to listen on: an address, or a list of addresses or mappings. If systemd passes "
            "sockets, only those are served: an entry with a name then requires that a socket of this name "
            "is passed, and an entry without a name configures the passed socket with its address.",
            GENERATION,
        ),
    ] = (ListenSettings(address="127.0.0.1:8080"),)
    workers: WorkersSettings = WorkersSettings()
    limits: WorkerLimitSettings = WorkerLimitSettings()
    idle_exit: Annotated[
        float,
        declare(
            "Time without a request or an open connection after which the service exits, if all its sockets "
            "come from systemd. The next connection starts it again; none is lost. 0: never.",
            LIVE,
            ge=0.0,
            le=DAY,
            unit=Unit.DURATION,
        ),
    ] = 0.0
    timeouts: TimeoutsSettings = TimeoutsSettings()
    reload: ReloadSettings = ReloadSettings()
    memory: MemorySettings = MemorySettings()
    http: HttpSettings = HttpSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    tls: TlsSettings = TlsSettings()
    proxy: ProxySettings = ProxySettings()
    log: LogSettings = LogSettings()
    access_log: AccessLogSettings = AccessLogSettings()
    control: ControlSettings = ControlSettings()

    @property
    def refork_refusal(self) -> str:
        """Why the next zygote cannot be forked from a worker; empty: it can."""
        if not self.app.preload:
            return "app.preload is false: the workers are forked before the application is loaded"
        return kind_of(self.app.target).refork_refusal
