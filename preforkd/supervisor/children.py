"""Handles of the master's children: what the kernel knows of them, no opinions."""

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
from preforkd.ipc.channel import Channel, pair
from preforkd.ipc.ratelimit import RateLimit
from preforkd.linux import backlog, process
from preforkd.supervisor.child_output import Output

CHANNEL_DESCRIPTOR = 3
STACKS_DESCRIPTOR = 4
_ROOM = 160
"""Bytes of command line that a zygote gets, so that its title and its workers' have room."""

ZYGOTE_MESSAGES = 1000
"""Messages of a zygote that are read in a second: one for each worker that it forks."""
WORKER_MESSAGES = 64
"""Messages of a worker that are read in a second: it has a handful of things to say in its life, and
rings once for each look at it."""

_COUNTED = 64
"""Connections that wait between workers and are counted: an elastic pool grows by no more in a step."""

UNUSABLE_INTERPRETER = 97
"""Exit status of a zygote whose interpreter cannot import preforkd's libraries."""

_LIBRARIES = ("msgspec", "httptools")
"""What a zygote and its workers import that Python does not have itself."""

_BOOTSTRAP = f"""\
import sys
if sys.path[:1] == ['']:
    del sys.path[0]
home = sys.argv[1]
sys.path.insert(0, home)
try:
    from preforkd.cli import import_fallback
    if not import_fallback.__file__.startswith(home + '/'):
        raise ImportError(f'preforkd is no longer in {{home}}')
    sys.path.remove(home)
    import_fallback.install(dict(zip({_LIBRARIES}, sys.argv[2].split(':'))))
    sys.argv[:] = ['preforkd']
    from preforkd.cli.zygote import main
except Exception as error:
    sys.stderr.write(f'preforkd: {{sys.executable}}: {{error!r}}\\n')
    sys.exit({UNUSABLE_INTERPRETER})
main()
"""
"""How another interpreter finds this preforkd and, after all of its own, the libraries it needs."""


class Launch(msgspec.Struct, frozen=True):
    """What a generation is started with."""

    generation: int
    settings: Settings
    listeners: tuple[tuple[str, socket.socket], ...]
    environment: dict[str, str]
    handoff: tuple[socket.socket, socket.socket] | None = None
    """Where its workers leave connections for each other: for giving, for taking."""
    origins: Mapping[str, Place] = msgspec.field(default_factory=dict)
    """Where each setting was written, by its dotted name."""
    secret_texts: tuple[str, ...] = ()
    """Values that no failure is to show."""
    proven: bool = False
    """The generation serves: its zygote, should it be started again, need not try the request of app.check."""

    def waiting(self) -> int:
        """Return how many connections wait for a worker, in the kernel and between workers."""
        depth = sum(backlog.waiting(sock) for _, sock in self.listeners)
        if self.handoff is not None:
            depth += backlog.messages(self.handoff[1], _COUNTED)
        return depth

    def hand_over(self, successor: "Launch | None") -> tuple[int, int]:
        """Let another generation answer the connections that wait between workers which are no more.

        Both must listen on the same sockets in the same order: a connection belongs to one of them.
        Returns how many went, and how many found no room.
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
        """Give up what is of no use without the generation; who still waits is cut off."""
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
    """It has said whether it has loaded the application."""
    rejected: int = 0
    """How many of its messages were none, or not true."""
    ratelimit: RateLimit = msgspec.field(default_factory=lambda: RateLimit(ZYGOTE_MESSAGES))

    @property
    def name(self) -> str:
        """What the log calls it."""
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
    """It has said so: it can be asked for its stacks."""
    serving: bool = False
    disconnected: bool = False
    """Its channel has ended or is not listened to any more."""
    send_blocked: bool = False
    """It does not read what it is told, and that was said."""
    rejected: int = 0
    """How many of its messages were none, or not true."""
    ratelimit: RateLimit = msgspec.field(default_factory=lambda: RateLimit(WORKER_MESSAGES))

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"worker {self.slot}"


_from_zygote: "msgspec.msgpack.Decoder[messages.FromZygote]" = msgspec.msgpack.Decoder(
    messages.FromZygote
)
_from_worker: "msgspec.msgpack.Decoder[messages.FromWorker]" = msgspec.msgpack.Decoder(
    messages.FromWorker
)


def with_absolute_paths(settings: Settings, home: str) -> Settings:
    """Return the settings with directory and interpreter as a zygote is to find them now.

    ``home``: what they are relative to, where preforkd was started; empty: it cannot be entered.
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
    """Execute a zygote with this interpreter; return its pid and our end of its channel.

    The child gets standard input, output and error, its channel and where it writes its stacks, and
    nothing else of ours. ``output``: descriptors to be its standard output and error instead of ours.
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
            # What is sent to all processes meanwhile must not end it; it lets them come when it can.
            setsigmask=process.MASTERS_SIGNALS,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return pid, Channel(ours, _from_zygote, takes_descriptors=False)


def new_zygote(zygote: int, launch: Launch, output: Output | None = None) -> ZygoteHandle:
    """Execute a zygote for a generation and return its handle. Raises OSError; no child is left."""
    python = launch.settings.app.python or sys.executable
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
        channel.close()  # which ends it
        slot_memory.close()
        raise
    return ZygoteHandle(zygote, launch.generation, channel, pid, pidfd, slot_memory, output)


def _descriptors(channel: int, stacks: int) -> list[tuple[int, ...]]:
    # By way of numbers that are neither's: dup2 onto itself would leave close-on-exec set, and one could be
    # where the other is to go.
    wanted = {CHANNEL_DESCRIPTOR: channel, STACKS_DESCRIPTOR: stacks}
    spare = max(channel, stacks, *wanted) + 1
    there = [(os.POSIX_SPAWN_DUP2, source, spare + n) for n, source in enumerate(wanted.values())]
    back = [(os.POSIX_SPAWN_DUP2, spare + n, target) for n, target in enumerate(wanted)]
    return [*there, *back, *((os.POSIX_SPAWN_CLOSE, spare + n) for n in range(len(wanted)))]


def _outputs(output: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(os.POSIX_SPAWN_DUP2, source, number) for number, source in enumerate(output, start=1)]


def _library_paths() -> list[str]:
    # Where those libraries are installed for this interpreter, in their order; empty: nowhere.
    specs = [PathFinder.find_spec(name) for name in _LIBRARIES]
    return [_root_of(spec.origin) if spec and spec.origin else "" for spec in specs]


def _root_of(package: str) -> str:
    """Return the directory from which a package is imported, of which this is the __init__ file."""
    return os.path.dirname(os.path.dirname(os.path.realpath(package)))


def new_worker(
    worker: int, slot: int, generation: int, zygote: ZygoteHandle, output: Output | None = None
) -> WorkerHandle:
    """Ask a zygote for a worker and return its handle; its process is not known yet.

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
    zygote: int, handle: WorkerHandle
) -> tuple[Channel[messages.FromZygote], slots.SlotReader]:
    """Ask a worker to fork a zygote from itself; return our end of its channel, and its memory.

    Raises OSError (BlockingIOError when the worker does not read) and ChannelClosedError.
    """
    ours, theirs = pair()
    slot_memory = None
    try:
        memory = slots.create(f"preforkd-zygote-{handle.generation}")
        slot_memory = slots.SlotReader(memory)
        handle.channel.send(messages.ReforkRequest(zygote), (theirs.fileno(), memory))
    except BaseException:
        ours.close()
        if slot_memory is not None:
            slot_memory.close()
        raise
    finally:
        theirs.close()
    return Channel(ours, _from_zygote, takes_descriptors=False), slot_memory


def kill(pidfd: int) -> None:
    """End a child that is of no use, and forget it; it is reaped as a stranger."""
    process.send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
