"""Start children, and the handles by which the master knows them: process, channel, slot."""

import os
import signal
import socket
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from typing import Any

import msgspec
from msgspec.structs import replace

import preforkd
from preforkd.config.encoding import native
from preforkd.config.settings import Settings
from preforkd.errors import Place
from preforkd.ipc import handoff, messages, slots
from preforkd.ipc.channel import CHANNEL_DESCRIPTOR, STACKS_DESCRIPTOR, Channel, pair
from preforkd.ipc.ratelimit import RateLimit
from preforkd.linux import backlog, process
from preforkd.supervisor import interpreter
from preforkd.supervisor.child_output import Output

_ROOM = 160
"""Bytes of padding in a zygote's command line: room for its title and those of its workers."""

ZYGOTE_MESSAGES = 1000
"""Messages of a zygote that are read per second; it sends one for each worker that it forks."""
WORKER_MESSAGES = 64
"""Messages of a worker that are read per second; it sends a few in its life, and ActivityResumed at most once
for each sample."""

_COUNTED = 64
"""Largest number of handed-off connections that is counted; an elastic pool grows by fewer per step."""

_BOOTSTRAP = f"""\
import sys
if sys.version_info < (3, 11):
    sys.stderr.write('preforkd: %s is Python %d.%d\\n' % ((sys.executable,) + sys.version_info[:2]))
    sys.exit({interpreter.TOO_OLD})
if sys.path[:1] == ['']:
    del sys.path[0]
home = sys.argv[1]
sys.path.insert(0, home)
try:
    from preforkd.cli import import_fallback
    if not import_fallback.__file__.startswith(home + '/'):
        raise ImportError('preforkd is no longer in ' + home)
    sys.path.remove(home)
    import_fallback.install(dict(zip({interpreter.LIBRARIES}, sys.argv[2].split(':'))))
    sys.argv[:] = ['preforkd']
    from preforkd.cli.zygote import main
except Exception as error:
    sys.stderr.write('preforkd: %s: %r\\n' % (sys.executable, error))
    ours = {tuple(sys.version_info[:2])}
    sys.exit({interpreter.UNUSABLE} if sys.version_info[:2] == ours else {interpreter.OTHER_VERSION})
main()
"""
"""How another interpreter finds this preforkd and, after its own path, the libraries it needs.

Written so that Python 2 can parse it, too, and report its version.
"""


class Launch(msgspec.Struct, frozen=True):
    """What a generation is started with."""

    generation: int
    settings: Settings
    listeners: tuple[tuple[str, socket.socket], ...]
    environment: dict[str, str]
    handoff: tuple[socket.socket, socket.socket] | None = None
    """The socket pair by which its workers hand off connections: sending end, receiving end."""
    origins: Mapping[str, Place] = msgspec.field(default_factory=dict)
    """Where each setting was written, by its dotted name."""
    secret_texts: tuple[str, ...] = ()
    """Secret values, which a failure must not show."""
    proven: bool = False
    """The generation has served: if its zygote is started again, it skips the trial request (app.check)."""

    def waiting(self) -> int:
        """Return how many connections wait for a worker, in backlogs and in the handoff."""
        depth = sum(backlog.waiting(sock) for _, sock in self.listeners)
        if self.handoff is not None:
            depth += backlog.queued_messages(self.handoff[1], _COUNTED)
        return depth

    def hand_over(self, successor: "Launch | None") -> tuple[int, int]:
        """Move the connections in the handoff to that of another generation, which answers them.

        Both must have the same listeners in the same order, because a connection refers to its listener by
        index. Returns how many were moved, and how many were lost because the other handoff was full.
        """
        if (
            successor is None
            or self.handoff is None
            or successor.handoff is None
            or successor is self
        ):
            return 0, 0
        if [name for name, _ in self.listeners] != [name for name, _ in successor.listeners]:
            return 0, 0
        return handoff.move(self.handoff[1], successor.handoff[0])

    def close(self) -> None:
        """Close the handoff; connections that are still in it are closed."""
        for sock in self.handoff or ():
            sock.close()


class ZygoteHandle(msgspec.Struct):
    """A zygote's process and channel."""

    zygote: int
    generation: int
    channel: Channel[messages.FromZygote]
    pid: int
    pidfd: int
    slot_memory: slots.SlotReader
    """Memory for its stacks."""
    output: Output | None = None
    reported: bool = False
    """It has reported the result of loading the application."""
    rejected: int = 0
    """Number of its messages that were malformed or not true."""
    ratelimit: RateLimit = msgspec.field(default_factory=lambda: RateLimit(ZYGOTE_MESSAGES))

    @property
    def name(self) -> str:
        """Its name in the log."""
        return f"zygote {self.zygote}"


class WorkerHandle(msgspec.Struct):
    """A worker's channel and memory, and its process once it is known."""

    worker: int
    slot: int
    generation: int
    zygote: int
    channel: Channel[messages.FromWorker]
    slot_memory: slots.SlotReader
    output: Output | None = None
    pid: int | None = None
    pidfd: int | None = None
    ready: bool = False
    """It has sent Ready, so it can be requested to write its stacks."""
    serving: bool = False
    disconnected: bool = False
    """Its channel was closed, or is no longer read."""
    send_blocked: bool = False
    """Its channel is full, and a warning was logged."""
    rejected: int = 0
    """Number of its messages that were malformed or not true."""
    ratelimit: RateLimit = msgspec.field(default_factory=lambda: RateLimit(WORKER_MESSAGES))

    @property
    def name(self) -> str:
        """Its name in the log."""
        return f"worker {self.slot}"


_from_zygote: "msgspec.msgpack.Decoder[messages.FromZygote]" = msgspec.msgpack.Decoder(
    messages.FromZygote
)
_from_worker: "msgspec.msgpack.Decoder[messages.FromWorker]" = msgspec.msgpack.Decoder(
    messages.FromWorker
)


def with_absolute_paths(settings: Settings, home: str) -> Settings:
    """Return the settings with absolute paths of directory and interpreter.

    ``home`` is the directory in which preforkd was started; empty if it cannot be entered.
    """
    app = settings.app
    if not home:
        return settings
    directory = home if app.directory in {"", "."} else os.path.join(home, app.directory)
    python = app.python and os.path.join(home, app.python)
    return replace(settings, app=replace(app, directory=directory, python=python))


def execute_zygote(
    python: str, environment: dict[str, str], output: tuple[int, ...] = (), stacks: int = 2
) -> tuple[int, Any]:
    """Execute a zygote with this interpreter; return its pid and the master's end of its channel.

    The child inherits standard input, output and error, its channel, the memory for its stacks, and no other
    descriptor. ``output``: descriptors that become its standard output and error.
    Raises OSError when the interpreter cannot be executed. posix_spawn(3)
    """
    ours, theirs = pair()
    python = native(python)
    home = _root_of(preforkd.__file__)
    arguments = [python, "-c", _BOOTSTRAP, home, ":".join(_library_paths()), " " * _ROOM]
    try:
        # A duplicate is not close-on-exec, the original is.
        pid = os.posix_spawn(
            python,
            arguments,
            {native(name): native(value) for name, value in environment.items()},
            file_actions=[*_outputs(output), *_descriptors(theirs.fileno(), stacks)],
            # A signal to the process group must not kill the child before it has its handlers.
            setsigmask=process.MASTER_SIGNALS,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return pid, Channel(ours, _from_zygote, takes_descriptors=False)


def new_zygote(zygote: int, launch: Launch, output: Output | None = None) -> ZygoteHandle:
    """Execute a zygote for a generation and return its handle. Raises OSError; no child is left."""
    python = interpreter.executable(launch.settings)
    theirs = output.child_ends if output is not None else ()
    memory = slots.create(f"preforkd-zygote-{launch.generation}")
    slot_memory = slots.SlotReader(memory)
    try:
        pid, channel = execute_zygote(python, launch.environment, theirs, memory)
    except BaseException:
        slot_memory.close()
        raise
    try:
        pidfd = process.open_child(pid)
    except OSError:
        channel.close()  # at which the zygote exits
        slot_memory.close()
        raise
    return ZygoteHandle(zygote, launch.generation, channel, pid, pidfd, slot_memory, output)


def _descriptors(channel: int, stacks: int) -> list[tuple[int, ...]]:
    # By way of spare numbers: dup2 onto the same number would leave close-on-exec set, and the source of one
    # could be the target of the other.
    wanted = {CHANNEL_DESCRIPTOR: channel, STACKS_DESCRIPTOR: stacks}
    spare = max(channel, stacks, *wanted) + 1
    there = [(os.POSIX_SPAWN_DUP2, source, spare + n) for n, source in enumerate(wanted.values())]
    back = [(os.POSIX_SPAWN_DUP2, spare + n, target) for n, target in enumerate(wanted)]
    return [*there, *back, *((os.POSIX_SPAWN_CLOSE, spare + n) for n in range(len(wanted)))]


def _outputs(output: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(os.POSIX_SPAWN_DUP2, source, number) for number, source in enumerate(output, start=1)]


def _library_paths() -> list[str]:
    # Return where those libraries are installed for this interpreter; empty if they are not.
    specs = [PathFinder.find_spec(name) for name in interpreter.LIBRARIES]
    return [_root_of(spec.origin) if spec and spec.origin else "" for spec in specs]


def _root_of(package: str) -> str:
    """Return the directory from which a package is imported, of which this is the __init__ file."""
    return os.path.dirname(os.path.dirname(os.path.realpath(package)))


def new_worker(
    worker: int, slot: int, generation: int, zygote: ZygoteHandle, output: Output | None = None
) -> WorkerHandle:
    """Order a zygote to fork a worker and return its handle; its process is not known yet.

    Raises OSError (BlockingIOError when the zygote does not read) and ChannelClosedError.
    """
    ours, theirs = pair()
    slot_memory = None
    try:
        memory = slots.create(f"preforkd-slot-{slot}")
        slot_memory = slots.SlotReader(memory)
        streams = output.child_ends if output is not None else ()
        zygote.channel.send(messages.Fork(worker, slot), (theirs.fileno(), memory, *streams))
    except BaseException:
        ours.close()
        if slot_memory is not None:
            slot_memory.close()
        raise
    finally:
        theirs.close()
    channel = Channel(ours, _from_worker, takes_descriptors=False)
    return WorkerHandle(worker, slot, generation, zygote.zygote, channel, slot_memory, output)


def request_zygote(
    zygote: int, handle: WorkerHandle, *, guarded: bool
) -> tuple[Channel[messages.FromZygote], slots.SlotReader]:
    """Order a worker to fork a zygote from itself; return the master's end of its channel, and its memory.

    Raises OSError (BlockingIOError when the worker does not read) and ChannelClosedError.
    """
    ours, theirs = pair()
    slot_memory = None
    try:
        memory = slots.create(f"preforkd-zygote-{handle.generation}")
        slot_memory = slots.SlotReader(memory)
        handle.channel.send(messages.ReforkRequest(zygote, guarded), (theirs.fileno(), memory))
    except BaseException:
        ours.close()
        if slot_memory is not None:
            slot_memory.close()
        raise
    finally:
        theirs.close()
    return Channel(ours, _from_zygote, takes_descriptors=False), slot_memory


def kill(pidfd: int) -> None:
    """Kill a child that is not needed, and forget it; it is reaped as an orphan."""
    process.send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
