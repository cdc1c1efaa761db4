"""Every setting, declared once: type, default, bounds, help, and what a reload does with it.

The YAML reader, ``etc/preforkd.yaml``, the JSON Schema, preforkd.yaml(5) and the command line derive from these
structs. They need nothing but msgspec, so that the zygote and the workers can hold them without the YAML
reader. All of them are imported from here, wherever they are declared.
"""

from typing import Annotated, Literal

from msgspec import Struct

from preforkd.config.declaration import DAY, GENERATION, LIVE, RESTART, OnReload, Unit, declare
from preforkd.config.kinds import HTTP_KINDS
from preforkd.config.settings_http import (
    AccessLogSettings,
    HttpSettings,
    ProxySettings,
    TlsSettings,
)
from preforkd.config.settings_pool import (
    MemorySettings,
    ReforkSettings,
    ReloadSettings,
    TimeoutsSettings,
    WorkerLimitSettings,
    WorkersSettings,
)

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
    "WorkerLimitSettings",
    "WorkersSettings",
]


class AppSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The application that the workers run."""

    target: Annotated[
        str,
        declare(
            "What to run, as KIND:MODULE:ATTRIBUTE. KIND is stream, wsgi or asgi; ATTRIBUTE may be a "
            "dotted path, or a call without arguments for a factory: wsgi:mysite:create_app().",
            GENERATION,
        ),
    ] = "stream:preforkd.apps.demo:greet"
    directory: Annotated[
        str,
        declare(
            "The application's directory: current directory of the workers and first entry of the "
            "module search path. A symbolic link in it is followed anew at each reload. Empty: where "
            "preforkd was started; a relative path begins there. Through a link ($PWD of a shell) that is "
            "found anew as well; under systemd, which sets no $PWD, write the whole path.",
            GENERATION,
        ),
    ] = ""
    python: Annotated[
        str,
        declare(
            "The interpreter that loads the application, for example "
            "/srv/site/.venv/bin/python. Empty: the one that runs preforkd.",
            GENERATION,
        ),
    ] = ""
    environment: Annotated[
        dict[str, str],
        declare("Environment variables for the application, added to preforkd's own.", GENERATION),
    ] = {}
    warm_up: Annotated[
        tuple[str, ...],
        declare(
            "What is done once, before the first worker is forked, so that all workers share what it "
            "loads: functions (MODULE:FUNCTION), and for kind wsgi paths that are requested of the "
            "application (/admin/login/), or URLs where the host or the scheme matters "
            "(https://shop.example/).",
            GENERATION,
        ),
    ] = ()
    warm_up_required: Annotated[
        bool,
        declare(
            "What fails in warm_up ends the start (or the reload). false: it is told as a warning.",
            GENERATION,
        ),
    ] = False
    check: Annotated[
        str,
        declare(
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
        declare(
            "host:port, [v6]:port, :port (every address), or unix:/path. Empty with a name: the socket "
            "is the one that systemd passes under this name.",
            GENERATION,
        ),
    ] = ""
    name: Annotated[
        str,
        declare(
            "The socket's name, in logs and for the application; for a socket from systemd its "
            "FileDescriptorName=. Empty: the address.",
            GENERATION,
        ),
    ] = ""
    backlog: Annotated[
        int,
        declare(
            "Connections that the kernel queues before a worker takes them; the kernel caps it at "
            "net.core.somaxconn.",
            GENERATION,
            ge=1,
            le=65535,
        ),
    ] = 1024
    mode: Annotated[
        int,
        declare("Permissions of a Unix socket.", GENERATION, ge=0, le=0o777, unit=Unit.MODE),
    ] = 0o666
    owner: Annotated[str, declare("User that owns a Unix socket. Empty: ours.", GENERATION)] = ""
    group: Annotated[str, declare("Group that owns a Unix socket. Empty: ours.", GENERATION)] = ""
    tls: Annotated[
        bool, declare("Speak TLS here, with the certificate of the section tls.", GENERATION)
    ] = False
    proxy_protocol: Annotated[
        bool,
        declare(
            "Every connection begins with the PROXY protocol's header, version 1 or 2. Peers that are "
            "not in proxy.trusted are refused.",
            GENERATION,
        ),
    ] = False

    @property
    def has_opening(self) -> bool:
        """Whether a TLS handshake or the PROXY protocol's header precedes what the client sends."""
        return self.tls or self.proxy_protocol


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, and where to."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        declare("The least important messages that are logged.", LIVE),
    ] = "info"
    target: Annotated[
        Literal["auto", "journal", "stderr"],
        declare(
            "auto: native journal fields when standard error is the journal, else lines on standard "
            "error.",
            RESTART,
        ),
    ] = "auto"


class ControlSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control socket, which preforkctl talks to."""

    socket: Annotated[
        str,
        declare(
            "Path of the socket; off: none. Empty: io.preforkd.Manager in $RUNTIME_DIRECTORY, which "
            "systemd sets; else, with the pid behind that name, in preforkd/ below the user's runtime "
            "directory.",
            RESTART,
        ),
    ] = ""
    mode: Annotated[
        int,
        declare(
            "Permissions of the socket. Who may connect may look; who may not command either sees "
            "requests without their query.",
            LIVE,
            ge=0,
            le=0o777,
            unit=Unit.MODE,
        ),
    ] = 0o660
    group: Annotated[
        str,
        declare(
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
        declare(
            "An object of the application's, as MODULE:ATTRIBUTE (or MODULE: the module itself), whose "
            "functions are called at the moments of a process's life: zygote_loaded, after_fork, "
            "before_refork, worker_started, worker_leaving, request_begun, request_ended. Empty: none.",
            GENERATION,
        ),
    ] = ""
    listen: Annotated[
        tuple[ListenSettings, ...],
        declare(
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
        declare(
            "With sockets from systemd only: leave after so long without a request or an open "
            "connection; the next connection starts the service again, and nothing is lost. 0: never.",
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
    tls: TlsSettings = TlsSettings()
    proxy: ProxySettings = ProxySettings()
    log: LogSettings = LogSettings()
    access_log: AccessLogSettings = AccessLogSettings()
    control: ControlSettings = ControlSettings()
