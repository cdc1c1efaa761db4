"""A worker from the fork to the exit.

It reports that it is ready, waits for the order to serve, serves until it has to retire, drains and exits.
A worker whose master has gone drains and exits as well.  The order of the steps is in the package's
theory of operation.
"""

import contextlib
import importlib
import logging
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import msgspec

from preforkd.apps.hooks import Hooks
from preforkd.config.kinds import KINDS
from preforkd.config.settings import Settings
from preforkd.errors import ApplicationError, Blame, Failure, PreforkdError, shortage
from preforkd.ipc import messages
from preforkd.ipc.channel import Channel, ChannelClosedError
from preforkd.ipc.slots import SlotWriter
from preforkd.linux import process, rlimits, stacks
from preforkd.linux.atfork import ApplicationChildren
from preforkd.logs import logs, sender
from preforkd.logs.context import remove_context, set_context
from preforkd.worker import loading, preflight, random_state
from preforkd.worker.acceptor import Acceptor, Listener
from preforkd.worker.reforking import BecomeZygote, ReforkHandler, guard_for

logger = logging.getLogger("preforkd.worker")


_DESCRIPTORS = 1024
"""Descriptors reserved for the application, in addition to those of connections."""
# Made before the fork: in each worker it would touch 0.4 MB of pages.
_to_worker: "msgspec.msgpack.Decoder[messages.ToWorker]" = msgspec.msgpack.Decoder(
    messages.ToWorker
)


class ProcessTitle(Protocol):
    """The process title that ps shows; implemented by `preforkd.linux.title.Title`."""

    def set(self, text: str) -> None:
        """Set the title."""


@dataclass(slots=True)
class WorkerContext:
    """What a worker gets from its zygote: its identity, the loaded application, and descriptors."""

    worker: int
    slot_number: int
    generation: int
    settings: Settings
    kind: str
    application: Any
    hooks: Hooks
    listeners: list[tuple[str, socket.socket]]
    title: ProcessTitle
    channel: int
    memory: int
    output: tuple[int, ...] = ()
    """Descriptors that become standard output and error; empty: both stay as inherited."""
    handoff: tuple[socket.socket, socket.socket] | None = None


class Server(Protocol):
    """A server for one kind of application: `prepare` first, which may fail, then `serve`."""

    def descriptors(self) -> Iterable[int]:
        """Return the descriptors that are closed in a child of the application; negative ones are ignored."""

    def prepare(self) -> None:
        """Run the steps that must succeed before the worker is ready. Raises PreforkdError."""

    def serve(self) -> None:
        """Serve until `Acceptor.retiring` is set and the drain has ended."""


def preload(kind: str, settings: Settings) -> None:
    """Import the modules of this kind before the fork, so that the workers share their pages.

    Checks what every worker needs as well. Raises what `preflight.check` raises.
    """
    names = KINDS[kind].modules
    if _has_handshakes(settings):
        names += KINDS[kind].handshake_modules
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    preflight.check(kind, settings)


def run(context: WorkerContext) -> tuple[int, int]:
    """Run the worker; the process exits at its end.

    Returns only in a process that was forked from the worker to be the next zygote: the descriptors of
    the new zygote's channel and of the memory for its stacks.
    """
    try:
        status = _run_worker(context)
    except BecomeZygote as become:
        _reset_worker_state(context)
        return become.descriptors
    except SystemExit as end:
        logger.warning("the application called sys.exit(%r); the worker exits", end.code)
        status = 0
    except BaseException as error:
        logger.critical(
            "worker %d failed%s", context.slot_number, _reason(context, error), exc_info=True
        )
        status = 1
    return _exit(status)


class _OwnDescriptors:
    """Yield the worker's own descriptors at the time of the call; each of ``more`` returns some of them."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self.more: list[Callable[[], Iterable[int]]] = []

    def __call__(self) -> Iterator[int]:
        yield self._context.channel
        for _, sock in self._context.listeners:
            yield sock.fileno()
        for part in self.more:
            yield from part()


def _reason(context: WorkerContext, error: BaseException) -> str:
    if hint := shortage(error):
        return f": {hint}"
    try:
        os.fstat(context.channel)
    except OSError:
        return (
            ": the application, or one of its libraries, closed a descriptor of preforkd; it must close "
            "only what it has opened (os.close, os.closerange)"
        )
    return ""


def _reset_worker_state(context: WorkerContext) -> None:
    stacks.disable()
    os.close(context.memory)
    process.prefer_for_oom_kill(preferred=False)
    os.environ.pop("PREFORKD_WORKER", None)
    remove_context("worker")
    logs.configure(context.settings.log.level, context.settings.log.target)
    context.hooks.call("after_fork")


def _run_worker(context: WorkerContext) -> int:
    own_descriptors = _OwnDescriptors(context)
    children = ApplicationChildren(own_descriptors)
    try:
        return _run_until_drained(context, own_descriptors, children)
    finally:
        if children.in_child:
            _exit_stray_child()


def _become_worker(context: WorkerContext) -> None:
    os.environ["PREFORKD_WORKER"] = str(context.slot_number)
    os.environ["PREFORKD_GENERATION"] = str(context.generation)
    set_context(worker=context.slot_number, generation=context.generation)
    logs.renew_after_fork()
    for number, descriptor in enumerate(context.output, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    random_state.renew()


def _run_until_drained(
    context: WorkerContext, own_descriptors: _OwnDescriptors, children: ApplicationChildren
) -> int:
    _become_worker(context)
    title = _title_setter(context)
    title("starting")
    channel: Channel[messages.ToWorker] = Channel(socket.socket(fileno=context.channel), _to_worker)
    slot_writer = SlotWriter(context.memory, lambda: _report_activity(channel))
    slot_writer.on_request_limit = lambda: _send_nowait(channel, messages.RequestLimitReached())
    process.prefer_for_oom_kill()
    acceptor = Acceptor(
        [Listener(name, sock) for name, sock in context.listeners], channel, slot_writer
    )
    own_descriptors.more.append(acceptor.descriptors)
    guard = guard_for(context.settings)
    context.hooks.call("after_fork")

    def on_retiring() -> None:
        title("draining")
        if acceptor.self_retired:
            # Sent before the drain, so that the master starts a replacement meanwhile.
            _send(channel, messages.Leaving("SIGTERM"))

    acceptor.on_retiring = on_retiring
    acceptor.refork_immediately = bool(context.settings.refork_refusal)
    try:
        if not context.settings.app.preload:
            ours = list(own_descriptors())
            context.application, context.hooks = loading.load(context.kind, context.settings, ours)
        acceptor.install_signal_handler()  # after the application's own
        with guard.own() if guard is not None else contextlib.nullcontext():
            server = _server(context, acceptor)
            own_descriptors.more.append(server.descriptors)
            server.prepare()
    except PreforkdError as error:
        _send(channel, messages.Failed(error.failure()))
        return 1
    except Exception as error:
        hint = shortage(error)
        failure = Failure(
            Blame.SYSTEM if hint else Blame.APPLICATION,
            f"{type(error).__name__}: {error}",
            traceback.format_exc(),
            hint,
        )
        _send(channel, messages.Failed(failure))
        return 1
    context.hooks.call("worker_started")
    acceptor.on_refork = ReforkHandler(
        context.settings,
        context.hooks,
        acceptor,
        lambda message: _send(channel, message),
        slot_writer,
        children,
        own_descriptors,
        guard,
    )
    _send(channel, messages.Ready())
    title("ready")
    if acceptor.wait_for_serve():
        title("serving")
        server.serve()
        if children.in_child:
            _exit_stray_child()  # before it calls the hook below
    context.hooks.call("worker_leaving")
    acceptor.report_retiring()
    title("leaving")
    acceptor.close()
    return 0


def _exit_stray_child() -> None:
    logger.warning(
        "a process that the application forked returned into the worker's code; terminated: "
        "such a child must end by os._exit()"
    )
    os._exit(0)


def _server(context: WorkerContext, acceptor: Acceptor) -> Server:
    if KINDS[context.kind].http or _has_handshakes(context.settings):
        # A connection uses one descriptor, and a second one while its body or answer is spooled;
        # systemd's default soft limit is 1024.
        rlimits.raise_descriptor_limit(2 * context.settings.http.connections + _DESCRIPTORS)
    if context.kind == "asgi":
        from preforkd.worker.asgi.server import AsgiServer  # noqa: PLC0415

        return AsgiServer(acceptor, context.application, context.settings)
    if context.kind == "wsgi":
        from preforkd.worker.wsgi.loop import WsgiLoop  # noqa: PLC0415

        loop = WsgiLoop(
            acceptor, context.application, context.settings, _handoff_queue(context), context.hooks
        )
        return _LoopServer(loop.run, loop.descriptors)
    if context.kind == "stream":
        from preforkd.worker import stream  # noqa: PLC0415

        handshakes = None
        if _has_handshakes(context.settings):
            from preforkd.worker.handshakes import Handshakes  # noqa: PLC0415

            handshakes = Handshakes(acceptor, context.settings)
        # The connection is not listed: the handler may have forked the child to serve it.
        return _LoopServer(
            lambda: stream.serve(acceptor, context.application, handshakes),
            lambda: handshakes.descriptors() if handshakes is not None else (),
        )
    raise ApplicationError(f"unknown kind of application: {context.kind!r}")


def _has_handshakes(settings: Settings) -> bool:
    # A TLS handshake or a PROXY header precedes the handler's bytes.
    return any(listen.has_opening for listen in settings.listen)


def _handoff_queue(context: WorkerContext) -> Any:
    from preforkd.ipc.handoff import HandoffQueue  # noqa: PLC0415

    return HandoffQueue(*context.handoff) if context.handoff is not None else None


@dataclass(frozen=True, slots=True)
class _LoopServer:
    loop: Callable[[], None]
    descriptors: Callable[[], Iterable[int]]

    def prepare(self) -> None:
        pass

    def serve(self) -> None:
        self.loop()


def _title_setter(context: WorkerContext) -> Callable[[str], None]:
    prefix = f"preforkd: worker {context.slot_number}, generation {context.generation}, "
    return lambda state: context.title.set(prefix + state)


def _send(channel: Channel[messages.ToWorker], message: messages.FromWorker) -> None:
    with contextlib.suppress(ChannelClosedError):
        channel.send(message, wait=True)


def _report_activity(channel: Channel[messages.ToWorker]) -> None:
    _send_nowait(channel, messages.ActivityResumed())


def _send_nowait(channel: Channel[messages.ToWorker], message: messages.FromWorker) -> None:
    # Between requests, or just before the application is called: it must neither block nor fail.
    with contextlib.suppress(ChannelClosedError, OSError):
        channel.send(message)


def _exit(status: int) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sender.report_losses()
    process.exit_process(status)
