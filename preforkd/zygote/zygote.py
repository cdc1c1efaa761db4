"""The zygote's loop: load the application once, then fork workers on request.

There are two entries to the loop: `from_scratch` loads the application; `from_worker` is called in a process
that was forked from a warm worker and has it loaded.

Workers are created by a double fork, so that their parent is the master (the nearest subreaper): the exit of a
zygote does not affect them.
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

from preforkd.apps import loader, loading, warmup
from preforkd.apps.hooks import Hooks
from preforkd.config.kinds import KINDS, kind_of
from preforkd.config.settings import AccessLogSettings, Settings
from preforkd.errors import Failure, PreforkdError, refused
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

_CHECK_MARGIN = 1.0
"""Seconds before the end of timeouts.start at which the trial request times out."""
_MIN_CHECK_TIMEOUT = 0.5
"""Seconds that the trial request has in any case."""


@dataclass(slots=True)
class LoadedApplication:
    """A loaded application and what its workers need."""

    generation: int
    settings: Settings
    kind: str
    application: Any
    hooks: Hooks
    listeners: list[tuple[str, socket.socket]]
    title: Title
    handoff: tuple[socket.socket, socket.socket] | None
    """The sending and the receiving end of the handoff queue."""
    directory: str
    """The application's directory, without symbolic links."""
    immortal_heap: bool

    def close(self) -> None:
        """Close all sockets, before this process exits."""
        _close([*(sock for _, sock in self.listeners), *(self.handoff or ())])


@dataclass(slots=True)
class WorkerStart:
    """What a forked worker starts with.

    It is returned to the bottom of the stack: a chain of reforks does not accumulate frames.
    """

    loaded: LoadedApplication
    worker: int
    slot: int
    channel: int
    memory: int
    output: tuple[int, ...]
    """Its standard output and error; empty: those of the zygote."""


def from_scratch(
    channel: Channel[messages.ToZygote],
    preload: Callable[[str, Settings], None],
    run_worker: Callable[[WorkerStart], object],
) -> WorkerStart | None:
    """Load the application that the master requests, and serve.

    ``preload`` imports the modules that workers of a kind need, and raises PreforkdError for settings with which
    no worker would start. ``run_worker`` runs a worker and does not return.

    Returns None when this process must exit, a WorkerStart in a new worker.
    """
    process.ignore_master_signals()
    # While loading it does not notice that the master is gone: systemd would wait for it after a kill.
    process.set_parent_death_signal(signal.SIGKILL)
    title = Title()
    title.set("preforkd: zygote starting")
    try:
        loaded = _load(channel, preload, run_worker, title)
    except ChannelClosedError:
        return None
    if loaded is None:
        return None
    process.set_parent_death_signal(0)
    return serve(channel, loaded)


def from_worker(
    channel: Channel[messages.ToZygote], loaded: LoadedApplication
) -> WorkerStart | None:
    """Serve with the application of the worker from which this process was forked.

    Returns None when this process must exit, a WorkerStart in a new worker.
    """
    process.ignore_master_signals()
    loaded.title.set(f"preforkd: zygote, generation {loaded.generation}, forked from a worker")
    begun = time.monotonic()
    exit_handlers.flush_logging()
    try:
        _prepare_heap(loaded)
    except (PreforkdError, OSError) as caught:
        error = refused("the zygote", caught) if isinstance(caught, OSError) else caught
        _send(channel, messages.LoadFailed(error.failure()))
        loaded.close()
        return None
    _send(channel, messages.Loaded(time.monotonic() - begun))
    return serve(channel, loaded)


def serve(channel: Channel[messages.ToZygote], loaded: LoadedApplication) -> WorkerStart | None:
    """Fork workers until dismissed.

    Returns None when this process must exit, a WorkerStart in a new worker.
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
            start = _fork(channel, loaded, message, received.descriptors)
            if start is not None:
                return start
        close_all(received.descriptors)


# --- loading -------------------------------------------------------------------------------------


def _load(
    channel: Channel[messages.ToZygote],
    preload: Callable[[str, Settings], None],
    run_worker: Callable[[WorkerStart], object],
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
    ours = loading.identities([channel.fileno(), *received.descriptors])
    unpatched_modules = UnpatchedModules()
    socks = [socket.socket(fileno=descriptor) for descriptor in received.descriptors]
    try:
        loaded = _load_order(order, socks, title, unpatched_modules)
        _exit_in_stray_child(children)
        # After the application, which may have replaced modules that these import.
        preload(loaded.kind, loaded.settings)
        unpatched_modules.restore()
        loading.refuse_greenlets(loaded.kind, loaded.settings, unpatched_modules)
        if loaded.immortal_heap:
            entries, application = loaded.settings.app.warm_up, loaded.application
            prefix = loaded.settings.http.prefix
            code_layout.group_hot_code(lambda: warmup.repeat(entries, application, prefix))
            _exit_in_stray_child(children)
        loading.check_descriptors(ours)
        children.disable()
        # Again: the application may have configured logging.
        logs.configure(loaded.settings.log.level, loaded.settings.log.target)
        exit_handlers.flush_logging()
        _warn_of_fork_hazards(before)
        _prepare_heap(loaded)
    except (PreforkdError, OSError) as caught:
        # Exceptions of the application have been converted to PreforkdError.
        error = refused("the zygote", caught) if isinstance(caught, OSError) else caught
        if loading.identities([channel.fileno()])[0] != ours[0]:
            # The application has closed the channel, and its number may be that of another file.
            logger.critical("%s", error.report())
            _close(socks)
            sys.exit(1)
        _send(channel, messages.LoadFailed(error.failure()))
        _close(socks)
        return None
    failure = _check(channel, loaded, run_worker, begun, order)
    if failure is not None:
        _send(channel, messages.LoadFailed(failure))
        _close(socks)
        return None
    _send(channel, messages.Loaded(time.monotonic() - begun, loaded.directory))
    return loaded


def _check(
    channel: Channel[messages.ToZygote],
    loaded: LoadedApplication,
    run_worker: Callable[[WorkerStart], object],
    begun: float,
    order: messages.Load,
) -> Failure | None:
    settings = loaded.settings
    url = settings.app.check if order.check and KINDS[loaded.kind].http else ""
    if not url and (settings.app.preload or not order.load_only):
        return None

    def start_worker(listener: socket.socket, descriptor: int, memory: int) -> None:
        channel.close()
        _reset_after_fork()
        # Without the access log: no client sent the request, and `preforkd --check` may run as another user.
        trial = replace(
            loaded,
            settings=msgspec.structs.replace(settings, access_log=AccessLogSettings()),
            listeners=[(app_check.LISTENER, listener)],
            handoff=None,
        )
        run_worker(WorkerStart(trial, 0, 0, descriptor, memory, ()))

    loaded.title.set(f"preforkd: zygote, generation {loaded.generation}, sending the trial request")
    # The timeout must be reported before the master gives up the start.
    rest = settings.timeouts.start - (time.monotonic() - begun) - _CHECK_MARGIN
    timeout = max(_MIN_CHECK_TIMEOUT, min(settings.timeouts.boot, rest))
    deferred = exit_handlers.DeferredExitHandlers()
    deferred.defer()
    try:
        return app_check.check(url, start_worker, timeout)
    finally:
        deferred.restore()


def _reset_after_fork() -> None:
    exit_handlers.reset_multiprocessing()
    unpatched.reset_hubs()


def _exit_in_stray_child(children: ApplicationChildren) -> None:
    if children.in_child:
        logger.warning("ending a process that the application forked while it was loaded")
        os._exit(0)


def _close(socks: list[socket.socket]) -> None:
    for sock in socks:
        with contextlib.suppress(OSError):  # the application may have closed it
            sock.close()


def _load_order(
    order: messages.Load,
    socks: list[socket.socket],
    title: Title,
    unpatched_modules: UnpatchedModules,
) -> LoadedApplication:
    settings = msgspec.msgpack.decode(order.settings, type=Settings)
    logs.configure(settings.log.level, settings.log.target)
    logs.capture_output()
    handoff = (socks[-2], socks[-1]) if order.handoff else None
    count = len(order.listeners)
    listeners = list(zip(order.listeners, socks[:count], strict=True))
    immortal_heap = heap.can_be_immortal(settings.app.preload and settings.memory.immortal)
    directory = loader.prepare(settings.app.directory)
    application, found = None, Hooks()
    if settings.app.preload:
        application, found = loading.load(settings, unpatched_modules)
    return LoadedApplication(
        order.generation,
        settings,
        kind_of(settings.app.target).name,
        application,
        found,
        listeners,
        title,
        handoff,
        directory,
        immortal_heap,
    )


def _prepare_heap(loaded: LoadedApplication) -> None:
    required = loaded.settings.memory.immortal is True
    heap.prepare(immortal_heap=loaded.immortal_heap, required=required)


def _warn_of_fork_hazards(before: Descriptors) -> None:
    # fork(2) copies the calling thread only; locks that other threads hold stay locked in the child.
    found = fork_hazards.find()
    for each in found:
        logger.warning(
            "the application has made %s while it was loaded: it cannot be used in the workers; make it in "
            "the hook worker_started, or when the first request comes, or set app.preload: false",
            each.description,
        )
    lost = inventory.lost_threads()
    threads = [thread.name for thread in lost if not fork_hazards.belongs(thread.module, found)]
    if threads:
        logger.warning(
            "the application has started %d thread(s) while it was loaded (%s): they do not exist in "
            "the workers, and their locks may stay locked; start threads when the first request comes, or set "
            "app.preload: false",
            len(threads),
            ", ".join(threads),
        )
    for connection in inventory.connections(excluding=before):
        logger.warning(
            "the application has left a connection open while it was loaded (%s): all workers would "
            "use this one at once; close it in the hook zygote_loaded, or set app.preload: false",
            connection,
        )


def _send(channel: Channel[messages.ToZygote], message: messages.FromZygote) -> None:
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
        _send(channel, messages.ForkFailed(order.worker, f"fork: {error.strerror}"))
        return None
    if isinstance(pid, fork.ForkedChild):
        channel.close()
        pid.wait()
        _reset_after_fork()
        worker_channel, memory, *output = descriptors
        return WorkerStart(loaded, order.worker, order.slot, worker_channel, memory, tuple(output))
    worker_pid, start_pipe = pid
    _send(channel, messages.Forked(order.worker, worker_pid))
    os.close(start_pipe)
    return None
