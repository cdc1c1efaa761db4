"""The zygote's loop: load the application once, then fork workers as the master asks.

"Load the application" and "already loaded" are two ways into one loop: `from_scratch` is the
first, `from_worker` the second, for a process that was forked from a warm worker.

A worker is born by a double fork, so that its parent is the master (the nearest subreaper) and not
the zygote: a zygote that ends orphans nobody.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from preforkd.apps import hooks, loader, warmup
from preforkd.apps.hooks import Hooks
from preforkd.config.kinds import KINDS
from preforkd.config.settings import AccessLogSettings, Settings
from preforkd.config.target import parse_target
from preforkd.errors import ApplicationError, Failure, PreforkdError, refused
from preforkd.ipc import messages
from preforkd.ipc.channel import Channel, ChannelClosedError, close_all
from preforkd.linux import exit_handlers, fork, inventory, process, unpatched
from preforkd.linux.atfork import ApplicationChildren
from preforkd.linux.inventory import Descriptors
from preforkd.linux.title import Title
from preforkd.linux.unpatched import UnpatchedModules
from preforkd.logs import logs
from preforkd.logs.context import set_context
from preforkd.zygote import app_check, code_layout, fork_hazards, heap

logger = logging.getLogger("preforkd.zygote")

_BEFORE_THE_END = 1.0
"""Seconds before timeouts.start is over, by which the request of app.check is to be answered."""
_LEAST_PATIENCE = 0.5
"""Seconds that it has in any case."""


@dataclass(slots=True)
class LoadedApplication:
    """A loaded application with all that its workers need."""

    generation: int
    settings: Settings
    kind: str
    application: Any
    hooks: Hooks
    listeners: list[tuple[str, socket.socket]]
    title: Title
    handoff: tuple[socket.socket, socket.socket] | None
    """Where the workers of this zygote leave connections for each other."""
    directory: str
    """Where it was loaded, without symbolic links."""

    def close(self) -> None:
        """Close all sockets: this process, which has no worker's part, is to end."""
        _close([*(sock for _, sock in self.listeners), *(self.handoff or ())])


@dataclass(slots=True)
class WorkerStart:
    """What a newborn worker starts with.

    It is returned down the stack, so that generations pile up no frames.
    """

    loaded: LoadedApplication
    worker: int
    slot: int
    channel: int
    memory: int
    output: tuple[int, ...]
    """What is to be its standard output and error; empty: the zygote's."""


def from_scratch(
    channel: Channel[messages.ToZygote],
    preload: Callable[[str, Settings], None],
    work: Callable[[WorkerStart], object],
) -> WorkerStart | None:
    """Load what the master asks for and serve.

    ``preload`` imports what the workers of a kind run beside the application, and raises PreforkdError
    for settings with which none of them would start. ``work`` lives a worker's life, and does not return.

    Returns None when this process is to end, a Birth in a new worker.
    """
    process.ignore_master_signals()
    # While it loads it does not see that its master has gone, and whoever waits for the end of a killed
    # master's processes would wait for it.
    process.set_parent_death_signal(signal.SIGKILL)
    title = Title()
    title.set("preforkd: zygote starting")
    try:
        loaded = _load(channel, preload, work, title)
    except ChannelClosedError:
        return None
    if loaded is None:
        return None
    process.set_parent_death_signal(0)
    return serve(channel, loaded)


def from_worker(
    channel: Channel[messages.ToZygote], loaded: LoadedApplication
) -> WorkerStart | None:
    """Serve with what a worker, from which this process was forked, has loaded and warmed up.

    Returns None when this process is to end, a Birth in a new worker.
    """
    process.ignore_master_signals()
    loaded.title.set(f"preforkd: zygote, generation {loaded.generation}, forked from a worker")
    begun = time.monotonic()
    exit_handlers.flush_logging()
    try:
        heap.prepare(immortal_heap=loaded.settings.memory.immortal)
    except (PreforkdError, OSError) as caught:
        error = refused("the zygote", caught) if isinstance(caught, OSError) else caught
        _tell(channel, messages.LoadFailed(error.failure()))
        loaded.close()
        return None
    _tell(channel, messages.Loaded(time.monotonic() - begun))
    return serve(channel, loaded)


def serve(channel: Channel[messages.ToZygote], loaded: LoadedApplication) -> WorkerStart | None:
    """Fork workers until dismissed.

    Returns None when this process is to end, a Birth in a new worker.
    """
    loaded.title.set(f"preforkd: zygote, generation {loaded.generation}")
    deferred = exit_handlers.DeferredExitHandlers()
    while True:
        try:
            received = channel.receive(wait=True)
        except ChannelClosedError:
            deferred.restore()
            loaded.close()
            return None
        assert received is not None
        message = received.message
        if isinstance(message, messages.Dismiss):
            if message.followed:
                process.exit_process(0, run_exit_handlers=False)
            deferred.restore()
            loaded.close()
            return None
        if isinstance(message, messages.Fork):
            deferred.defer()
            birth = _fork(channel, loaded, message, received.descriptors)
            if birth is not None:
                return birth
        close_all(received.descriptors)


# --- loading -------------------------------------------------------------------------------------


def _load(
    channel: Channel[messages.ToZygote],
    preload: Callable[[str, Settings], None],
    work: Callable[[WorkerStart], object],
    title: Title,
) -> LoadedApplication | None:
    received = channel.receive(wait=True)
    assert received is not None
    if not isinstance(received.message, messages.Load):
        return None
    order = received.message
    set_context(generation=order.generation)
    title.set(f"preforkd: zygote, generation {order.generation}, loading")
    begun = time.monotonic()
    children = ApplicationChildren(lambda: [channel.fileno(), *received.descriptors])
    before = inventory.descriptors()
    ours = _identities([channel.fileno(), *received.descriptors])
    library = UnpatchedModules()
    socks = [socket.socket(fileno=descriptor) for descriptor in received.descriptors]
    try:
        loaded = _load_order(order, socks, title, library)
        _end_stray(children)
        # After the application, which may replace modules that they import.
        preload(loaded.kind, loaded.settings)
        library.keep()
        _demand_threads(loaded.kind, loaded.settings, library)
        if loaded.settings.memory.immortal:
            entries, application = loaded.settings.app.warm_up, loaded.application
            code_layout.group_hot_code(lambda: warmup.repeat(entries, application))
            _end_stray(children)
        _demand_descriptors(ours)
        children.disable()
        # Again: an application that configures logging takes away what is not its own.
        logs.configure(loaded.settings.log.level, loaded.settings.log.target)
        exit_handlers.flush_logging()
        _warn_before_fork(before)
        heap.prepare(immortal_heap=loaded.settings.memory.immortal)
    except (PreforkdError, OSError) as caught:
        # What the application's code raises has been made a PreforkdError.
        error = refused("the zygote", caught) if isinstance(caught, OSError) else caught
        if _identities([channel.fileno()])[0] != ours[0]:
            # Nobody can be told by a channel that is closed, and its number may be another's by now.
            logger.critical("%s", error.report())
            _close(socks)
            sys.exit(1)
        _tell(channel, messages.LoadFailed(error.failure()))
        _close(socks)
        return None
    failure = _check(channel, loaded, work, begun) if order.check else None
    if failure is not None:
        _tell(channel, messages.LoadFailed(failure))
        _close(socks)
        return None
    _tell(channel, messages.Loaded(time.monotonic() - begun, loaded.directory))
    return loaded


def _check(
    channel: Channel[messages.ToZygote],
    loaded: LoadedApplication,
    work: Callable[[WorkerStart], object],
    begun: float,
) -> Failure | None:
    settings = loaded.settings
    if not settings.app.check or not KINDS[loaded.kind].http:
        return None

    def live(listener: socket.socket, descriptor: int, memory: int) -> None:
        channel.close()
        _begin_anew()
        # The request is not a client's; and who tries a configuration may not be the service's user.
        trial = replace(
            loaded,
            settings=msgspec.structs.replace(settings, access_log=AccessLogSettings()),
            listeners=[(app_check.LISTENER, listener)],
            handoff=None,
        )
        work(WorkerStart(trial, 0, 0, descriptor, memory, ()))

    loaded.title.set(f"preforkd: zygote, generation {loaded.generation}, trying a request")
    # Told before the master gives the whole start up.
    rest = settings.timeouts.start - (time.monotonic() - begun) - _BEFORE_THE_END
    patience = max(_LEAST_PATIENCE, min(settings.timeouts.boot, rest))
    deferred = exit_handlers.DeferredExitHandlers()
    deferred.defer()
    try:
        return app_check.check(settings.app.check, live, patience)
    finally:
        deferred.restore()


def _begin_anew() -> None:
    exit_handlers.reset_multiprocessing()
    unpatched.reset_hubs()


def _end_stray(children: ApplicationChildren) -> None:
    if children.in_child:
        logger.warning("a process that the application forked while it was loaded is ended")
        os._exit(0)


def _close(socks: list[socket.socket]) -> None:
    for sock in socks:
        with contextlib.suppress(OSError):  # the application may have closed it
            sock.close()


def _load_order(
    order: messages.Load, socks: list[socket.socket], title: Title, library: UnpatchedModules
) -> LoadedApplication:
    settings = msgspec.msgpack.decode(order.settings, type=Settings)
    logs.configure(settings.log.level, settings.log.target)
    logs.capture_output()
    handoff = (socks[-2], socks[-1]) if order.handoff else None
    count = len(order.listeners)
    listeners = list(zip(order.listeners, socks[:count], strict=True))
    heap.check(immortal_heap=settings.memory.immortal)
    app = settings.app
    target = parse_target(app.target)
    directory = loader.prepare(app.directory)
    application = loader.load(target)
    library.keep()
    found = hooks.load(settings.hooks, target.kind)
    warmup.run(app.warm_up, application, required=app.warm_up_required)
    found.call("zygote_loaded")
    # The application may have installed its own.
    process.ignore_master_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return LoadedApplication(
        order.generation,
        settings,
        target.kind,
        application,
        found,
        listeners,
        title,
        handoff,
        directory,
    )


def _demand_threads(kind: str, settings: Settings, library: UnpatchedModules) -> None:
    """Raise ApplicationError if the application has replaced what its workers cannot do without."""
    who = library.greenlets()
    if not who:
        return
    if KINDS[kind].event_loop:
        raise ApplicationError(
            f"{who} has replaced threads and selectors of the standard library (a monkey patch): asyncio, "
            "which an ASGI application runs in, does not work with them",
            hint=f"remove the patch, or serve a WSGI application with {who} (app.target: wsgi:…)",
        )
    if settings.workers.threads > 1:
        raise ApplicationError(
            f"{who} has replaced threads of the standard library (a monkey patch): its greenlets cannot be "
            f"used by the {settings.workers.threads} threads of workers.threads",
            hint="leave workers.threads out and let workers.count be larger, or remove the patch",
        )
    logger.info(
        "%s has replaced parts of the standard library: its greenlets run while a request waits, and a "
        "worker answers one request at a time",
        who,
    )


def _identities(descriptors: list[int]) -> list[tuple[int, int, int]]:
    # Number, device and inode of each; zeros for one that is closed.
    found = []
    for descriptor in descriptors:
        try:
            status = os.fstat(descriptor)
        except OSError:
            found.append((descriptor, 0, 0))
        else:
            found.append((descriptor, status.st_dev, status.st_ino))
    return found


def _demand_descriptors(ours: list[tuple[int, int, int]]) -> None:
    """Raise ApplicationError if what was open before the application was loaded is not any more."""
    if _identities([descriptor for descriptor, _, _ in ours]) != ours:
        raise ApplicationError(
            "the application has closed descriptors that are not its own while it was loaded",
            hint="it must not become a daemon, nor close what it did not open (os.closerange)",
        )


def _warn_before_fork(before: Descriptors) -> None:
    # fork(2) copies the calling thread only; what another one held locked stays locked for ever.
    found = fork_hazards.find()
    for each in found:
        logger.warning(
            "the application has made %s while it was loaded: it cannot be used in the workers; make it in "
            "the hook worker_started, or when the first request comes",
            each.words,
        )
    lost = inventory.lost_threads()
    threads = [thread.name for thread in lost if not fork_hazards.belongs(thread.module, found)]
    if threads:
        logger.warning(
            "the application has started %d thread(s) while it was loaded (%s): they do not exist in "
            "the workers, and their locks may stay locked; start threads when the first request comes",
            len(threads),
            ", ".join(threads),
        )
    for connection in inventory.connections(excluding=before):
        logger.warning(
            "the application has left a connection open while it was loaded (%s): all workers would "
            "use this one at once; close it in the hook zygote_loaded",
            connection,
        )


def _tell(channel: Channel[messages.ToZygote], message: messages.FromZygote) -> None:
    with contextlib.suppress(ChannelClosedError):
        channel.send(message, wait=True)


# --- forking -------------------------------------------------------------------------------------


def _fork(
    channel: Channel[messages.ToZygote],
    loaded: LoadedApplication,
    order: messages.Fork,
    descriptors: tuple[int, ...],
) -> WorkerStart | None:
    try:
        pid = fork.double_fork()
    except OSError as error:
        _tell(channel, messages.ForkFailed(order.worker, f"fork: {error.strerror}"))
        return None
    if isinstance(pid, fork.ForkedChild):
        channel.close()
        pid.wait()
        _begin_anew()
        seat_channel, memory, *output = descriptors
        return WorkerStart(loaded, order.worker, order.slot, seat_channel, memory, tuple(output))
    born, go = pid
    _tell(channel, messages.Forked(order.worker, born))
    os.close(go)
    return None
