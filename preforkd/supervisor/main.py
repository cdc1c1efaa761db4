"""The master's process: its loop, its signals, its sockets, and its exit status."""

import faulthandler
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from preforkd.config.configuration import Configuration
from preforkd.config.settings import Settings
from preforkd.control import server as control
from preforkd.control.path import to_bind
from preforkd.core.text import hide
from preforkd.errors import PreforkdError, SystemFailure
from preforkd.linux import environment, memory, process, socket_activation
from preforkd.linux.memory import PressureWatch
from preforkd.linux.sd_notify import Notifier
from preforkd.logs import logs
from preforkd.loop import Loop
from preforkd.supervisor import signals
from preforkd.supervisor.children import with_absolute_paths
from preforkd.supervisor.listeners import Listeners
from preforkd.supervisor.master import Master

if TYPE_CHECKING:
    from preforkd.supervisor.file_watch import FileWatch

logger = logging.getLogger("preforkd.master")


def run(read: Callable[[], Configuration]) -> int:
    """Be the master until the service ends; return the exit status.

    ``read`` returns the configuration as it is now, for the start and for reloads. Raises PreforkdError
    when the service cannot begin: a configuration that is not valid, a socket that cannot be had, a
    control socket that the configuration names.
    """
    notifier = Notifier.from_environment(os.environ)
    try:
        # Before the configuration is read: an instance that Accept=yes has started has none.
        listeners = Listeners(socket_activation.inherited_listeners(), notifier)
        configuration = read()
        logs.configure(configuration.settings.log.level, configuration.settings.log.target)
        process.set_child_subreaper()
        # A master that hangs is ended by the watchdog's SIGABRT: where it hung is then in the log.
        faulthandler.enable()
        clean = environment.clean(os.environ)
        original = dict(os.environ)
        os.environ.clear()
        os.environ.update(clean)
        memory.trim()
        try:
            return _run(read, configuration, listeners, notifier, original)
        except PreforkdError as error:
            hide(error, configuration.secret_texts)
            raise
    finally:
        notifier.close()


def _run(
    read: Callable[[], Configuration],
    configuration: Configuration,
    listeners: Listeners,
    notifier: Notifier,
    environ: Mapping[str, str],
) -> int:
    loop = Loop()
    master = Master(loop, read, configuration, listeners, notifier, environment=dict(os.environ))
    server: control.ControlServer | None = None
    pressure = PressureWatch.from_environment(environ)
    try:
        signals.receive(loop, master)
        if pressure is not None:
            loop.add_reader(pressure.fileno(), _memory_pressure, master, pressure)
        server = _open_control(loop, master, configuration.settings, environ)
        _follow_files(loop, master)
        master.start()
        loop.run()
    finally:
        if pressure is not None:
            loop.remove_reader(pressure.fileno())
            pressure.close()
        if server is not None:
            server.close(loop.stop)
            loop.run()
        master.close()
    return int(master.exit_status)


def _memory_pressure(master: Master, pressure: PressureWatch) -> None:
    pressure.acknowledge()
    master.on_memory_pressure()


def _follow_files(loop: Loop, master: Master) -> None:
    # Before the start: a file may be saved while it is loaded.
    watch: FileWatch | None = None
    home = environment.working_directory(os.environ)

    def update(settings: Settings) -> None:
        nonlocal watch
        if watch is None and settings.app.watch:
            from preforkd.supervisor import file_watch  # noqa: PLC0415 - for development only

            watch = file_watch.FileWatch(
                loop, lambda fresh: master.reload(lambda _answer: None, fresh=fresh)
            )
        if watch is not None:
            directory = with_absolute_paths(settings, home).app.directory
            watch.update(directory if settings.app.watch else None, master.configuration.path)

    master.on_commit.append(update)
    update(master.settings)


def _open_control(
    loop: Loop, master: Master, settings: Settings, environ: Mapping[str, str]
) -> control.ControlServer | None:
    wanted = settings.control
    server = control.ControlServer(loop, master, wanted.group)
    try:
        path = to_bind(wanted.socket, environ)
        if path is None:
            return None
        server.start(path, wanted.mode)
    except SystemFailure as error:
        if wanted.socket:
            raise _with_setting(error) from error
        # The path is a default, not a setting, and serving matters more than being observable.
        logger.warning(
            "cannot open the control socket: %s; preforkctl is unavailable", error.message
        )
        return None
    logger.info("control socket: %s", path)
    master.on_commit.append(
        lambda changed: server.set_access(changed.control.mode, changed.control.group)
    )
    return server


def _with_setting(error: SystemFailure) -> PreforkdError:
    return SystemFailure(f"control.socket: {error.message}", hint=error.hint, detail=error.detail)
