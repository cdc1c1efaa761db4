"""A worker's life: from the fork to the exit.

It says that it is ready, waits until it is told to serve, serves until it is told to leave, and
leaves.  A worker whose master has gone finishes its request and leaves as well.
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
from preforkd.errors import ApplicationError, PreforkdError, shortage
from preforkd.ipc import messages
from preforkd.ipc.channel import Channel, ChannelClosedError, close_all
from preforkd.ipc.slots import SlotWriter
from preforkd.linux import exit_handlers, fork, process, rlimits, stacks, unpatched
from preforkd.linux.atfork import ApplicationChildren
from preforkd.logs import logs
from preforkd.worker import preflight, random_state
from preforkd.worker.acceptor import Acceptor, Listener

logger = logging.getLogger("preforkd.worker")


_DESCRIPTORS = 1024
"""Descriptors that the application may need beside its connections."""
# Made before the fork: in each worker it would touch 0.4 MB of pages.
_to_worker: "msgspec.msgpack.Decoder[messages.ToWorker]" = msgspec.msgpack.Decoder(
    messages.ToWorker
)


class Title(Protocol):
    """What ps shows; `preforkd.linux.title.Title`."""

    def set(self, text: str) -> None:
        """Show this text."""


@dataclass(slots=True)
class Seat:
    """What a worker starts with."""

    worker: int
    slot: int
    generation: int
    settings: Settings
    kind: str
    application: Any
    hooks: Hooks
    listeners: list[tuple[str, socket.socket]]
    title: Title
    channel: int
    memory: int
    output: tuple[int, ...] = ()
    """What is to be its standard output and error; empty: what they are."""
    handoff: tuple[socket.socket, socket.socket] | None = None


class Server(Protocol):
    """How one kind of application is served: prepared first, which may fail, then served."""

    def descriptors(self) -> Iterable[int]:
        """Return those that a child of the application must not keep; negative ones are ignored."""

    def prepare(self) -> None:
        """Do what must succeed before the worker is ready. Raises PreforkdError."""

    def serve(self) -> None:
        """Serve until the gate says that the worker is to leave."""


def preload(kind: str, settings: Settings) -> None:
    """Import what a worker of this kind runs, before the fork: the workers share it then.

    What every worker needs is tried as well; raises what `preflight.check` raises.
    """
    names = KINDS[kind].modules
    if _opens(settings):
        names += KINDS[kind].opening_modules
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    preflight.check(kind, settings)


class Reborn(BaseException):
    """Raised in a process that was forked from a worker, to become a zygote."""

    def __init__(self, descriptors: tuple[int, int]) -> None:
        super().__init__()
        self.descriptors = descriptors


def run(seat: Seat) -> tuple[int, int]:
    """Live the life of a worker, at whose end the process ends.

    Returns only in a process that was forked from the worker: the descriptors of the channel of the
    zygote that it is to be, and of the memory for its stacks.
    """
    try:
        status = _live(seat)
    except Reborn as reborn:
        _forget_the_worker(seat)
        return reborn.descriptors
    except SystemExit as end:
        logger.warning("the application ended the worker: sys.exit(%r)", end.code)
        status = 0
    except BaseException as error:
        logger.critical("worker %d failed%s", seat.slot, _why(seat, error), exc_info=True)
        status = 1
    return _leave(status)


class _Own:
    """The descriptors that are the worker's own at this moment; ``more`` return some of them each."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self.more: list[Callable[[], Iterable[int]]] = []

    def __call__(self) -> Iterator[int]:
        yield self._seat.channel
        for _, sock in self._seat.listeners:
            yield sock.fileno()
        for part in self.more:
            yield from part()


def _why(seat: Seat, error: BaseException) -> str:
    if hint := shortage(error):
        return f": {hint}"
    try:
        os.fstat(seat.channel)
    except OSError:
        return (
            ": a descriptor of preforkd's was closed by the application, or a library of its; it must close "
            "only what it has opened (os.close, os.closerange)"
        )
    return ""


def _forget_the_worker(seat: Seat) -> None:
    stacks.write_no_more()
    os.close(seat.memory)
    process.make_preferred_victim(preferred=False)
    os.environ.pop("PREFORKD_WORKER", None)
    logs.forget_context("worker")
    logs.configure(seat.settings.log.level, seat.settings.log.target)
    seat.hooks.call("after_fork")


def _live(seat: Seat) -> int:
    own = _Own(seat)
    children = ApplicationChildren(own)
    try:
        return _work(seat, own, children)
    finally:
        if children.here:
            _end_stray()


def _work(seat: Seat, own: _Own, children: ApplicationChildren) -> int:
    os.environ["PREFORKD_WORKER"] = str(seat.slot)
    os.environ["PREFORKD_GENERATION"] = str(seat.generation)
    logs.set_context(worker=seat.slot, generation=seat.generation)
    logs.renew()
    for number, descriptor in enumerate(seat.output, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    random_state.renew()
    seat.hooks.call("after_fork")
    title = _titles(seat)
    title("starting")
    channel: Channel[messages.ToWorker] = Channel(socket.socket(fileno=seat.channel), _to_worker)
    slot_writer = SlotWriter(seat.memory, lambda: _report_activity(channel))
    slot_writer.on_request_limit = lambda: _say_soon(channel, messages.RequestLimitReached())
    process.make_preferred_victim()
    gate = Acceptor([Listener(name, sock) for name, sock in seat.listeners], channel, slot_writer)
    own.more.append(gate.descriptors)
    gate.take_signals()

    def begin_to_leave() -> None:
        title("draining")
        if gate.unasked:
            # Said before it finishes, so that another takes its place meanwhile.
            _tell(channel, messages.Leaving("SIGTERM"))

    gate.on_retiring = begin_to_leave
    gate.refork_at_once = bool(KINDS[seat.kind].refork_refusal)
    try:
        server = _server(seat, gate)
        own.more.append(server.descriptors)
        server.prepare()
    except PreforkdError as error:
        _tell(channel, messages.Failed(messages.problem_of(error)))
        return 1
    except Exception as error:
        hint = shortage(error)
        problem = messages.Problem(
            "system" if hint else "application",
            f"{type(error).__name__}: {error}",
            traceback.format_exc(),
            hint,
        )
        _tell(channel, messages.Failed(problem))
        return 1
    seat.hooks.call("worker_started")
    gate.on_refork = _Refork(seat, gate, channel, slot_writer, children)
    _tell(channel, messages.Ready())
    title("ready")
    if gate.wait_until_told():
        title("serving")
        server.serve()
        if children.here:
            _end_stray()  # before the hook below is called in it
    seat.hooks.call("worker_leaving")
    gate.announce()
    title("leaving")
    gate.close()
    return 0


@dataclass(frozen=True, slots=True)
class _Refork:
    """Forks the next zygote from this worker; called by the gate, between two requests."""

    seat: Seat
    gate: Acceptor
    channel: Channel[messages.ToWorker]
    slot_writer: SlotWriter
    children: ApplicationChildren

    def __call__(self, zygote: int, descriptors: tuple[int, int]) -> None:
        """Fork and tell the master; in the new process, raise Reborn."""
        born, reason = self._fork()
        if isinstance(born, fork.ForkedChild):
            self.children.release()
            self.gate.abandon()
            self.slot_writer.close()
            born.wait()
            exit_handlers.renew_multiprocessing()
            unpatched.renew_hubs()
            raise Reborn(descriptors)
        close_all(descriptors)
        if born is None:
            problem = messages.Problem("application", reason)
            _tell(self.channel, messages.ReforkFailed(zygote, problem))
            return
        pid, go = born
        _tell(self.channel, messages.Reforked(zygote, pid))
        os.close(go)

    def _fork(self) -> tuple[tuple[int, int] | fork.ForkedChild | None, str]:
        if reason := KINDS[self.seat.kind].refork_refusal:
            return None, reason
        with self.slot_writer.busy_outside_request():
            reason = self.seat.hooks.call("before_refork")
        if reason:
            return None, reason
        # The zygote goes on with them, and this worker leaves before long: nobody takes them away.
        withheld = exit_handlers.DeferredExitHandlers()
        withheld.withhold()
        try:
            with self.children.spared():
                return fork.double_fork(), ""
        except OSError as error:
            withheld.give_back()
            return None, f"fork: {error.strerror}"


def _end_stray() -> None:
    logger.warning(
        "a process that the application forked came back from its call, and is ended; "
        "such a child must end by os._exit()"
    )
    os._exit(0)


def _server(seat: Seat, gate: Acceptor) -> Server:
    if KINDS[seat.kind].http or _opens(seat.settings):
        # Each connection takes a descriptor, and one more while its body or answer waits in a file;
        # systemd's soft limit is 1024.
        rlimits.raise_descriptor_limit(2 * seat.settings.http.connections + _DESCRIPTORS)
    if seat.kind == "asgi":
        from preforkd.worker.asgi.server import AsgiServer  # noqa: PLC0415

        return AsgiServer(gate, seat.application, seat.settings)
    if seat.kind == "wsgi":
        from preforkd.worker.wsgi.loop import WsgiLoop  # noqa: PLC0415

        loop = WsgiLoop(gate, seat.application, seat.settings, _handoff_queue(seat), seat.hooks)
        return _Simple(loop.run, loop.descriptors)
    if seat.kind == "stream":
        from preforkd.worker import stream  # noqa: PLC0415

        openings = None
        if _opens(seat.settings):
            from preforkd.worker.openings import Openings  # noqa: PLC0415

            openings = Openings(gate, seat.settings)
        # The connection is the handler's: it may have forked the child to serve it.
        return _Simple(
            lambda: stream.serve(gate, seat.application, openings),
            lambda: openings.descriptors() if openings is not None else (),
        )
    raise ApplicationError(f"there is no kind of application named {seat.kind!r}")


def _opens(settings: Settings) -> bool:
    # Something precedes the handler's part of a stream connection.
    return any(listen.has_opening for listen in settings.listen)


def _handoff_queue(seat: Seat) -> Any:
    from preforkd.ipc.handoff import HandoffQueue  # noqa: PLC0415

    return HandoffQueue(*seat.handoff) if seat.handoff is not None else None


@dataclass(frozen=True, slots=True)
class _Simple:
    loop: Callable[[], None]
    descriptors: Callable[[], Iterable[int]]

    def prepare(self) -> None:
        pass

    def serve(self) -> None:
        self.loop()


def _titles(seat: Seat) -> Callable[[str], None]:
    prefix = f"preforkd: worker {seat.slot}, generation {seat.generation}, "
    return lambda state: seat.title.set(prefix + state)


def _tell(channel: Channel[messages.ToWorker], message: messages.FromWorker) -> None:
    with contextlib.suppress(ChannelClosedError):
        channel.send(message, wait=True)


def _report_activity(channel: Channel[messages.ToWorker]) -> None:
    _say_soon(channel, messages.ActivityResumed())


def _say_soon(channel: Channel[messages.ToWorker], message: messages.FromWorker) -> None:
    # Said between requests, or before the application begins: it must neither wait nor fail.
    with contextlib.suppress(ChannelClosedError, OSError):
        channel.send(message)


def _leave(status: int) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logs.tell_losses()
    process.leave(status)
