"""What a fork does not copy, or makes two processes share: threads, connections, databases.

fork(2), proc(5)
"""

import os
import select
import signal
import socket
import stat
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

_SERVICES = {
    1433: "SQL Server",
    1521: "Oracle",
    2181: "ZooKeeper",
    3306: "MySQL",
    5432: "PostgreSQL",
    5433: "PostgreSQL",
    5672: "AMQP",
    6379: "Redis",
    6432: "PgBouncer",
    9042: "Cassandra",
    9092: "Kafka",
    9200: "Elasticsearch",
    11211: "memcached",
    27017: "MongoDB",
}
"""Well-known ports of databases and brokers."""
_PATHS = {".s.PGSQL.": "PostgreSQL", "mysql": "MySQL", "maria": "MariaDB", "redis": "Redis"}
_MANAGER = "/pymp-"
"""Part of the paths at which managers of multiprocessing listen."""
_SQLITE = b"SQLite format 3\0"

_RESTARTED = ("sentry", "raven-sentry", "jemalloc_bg_thd", "QueueFeederThread")
"""Names of threads that are started again in a forked process on demand: those of Sentry and jemalloc by
themselves, those of multiprocessing through `preforkd.linux.exit_handlers`."""
_THREADED = {
    "cygrpc": "gRPC",
    "librdkafka": "librdkafka",
    "libzmq": "ZeroMQ",
    "libonnxruntime": "ONNX Runtime",
    "libtensorflow": "TensorFlow",
    "libtorch": "PyTorch",
    "libtbb": "TBB",
    "libgomp": "OpenMP (libgomp)",
    "libiomp5": "OpenMP (libiomp5)",
    "openblas": "OpenBLAS",
}
"""Libraries that start threads, by part of their file's name."""
_LIBRARY_THREADS = dict.fromkeys(
    ("event_engine", "grpc_global_tim", "lifeguard", "timer_manager", "resolver-executo"), "grpc"
)
"""Modules to which threads of these names belong."""
_PIPE = 65536
_CHILD_TIMEOUT = 5.0
"""Seconds for a child to report its threads."""

Descriptors = frozenset[tuple[int, int, int]]
"""Number, device and inode of each."""


class OpenConnection(Struct, frozen=True):
    """A connected socket or an open database file.

    ``peer`` is an address or a path; ``service`` is the probable kind of server, or empty.
    """

    descriptor: int
    peer: str
    service: str

    def __str__(self) -> str:
        service = f", probably {self.service}" if self.service else ""
        return f"descriptor {self.descriptor}, {self.peer}{service}"


class RunningThread(Struct, frozen=True):
    """A thread of this process; ``module`` defines the function that it runs, empty if unknown."""

    name: str
    module: str = ""


def threads() -> list[RunningThread]:
    """Return this process's other threads, in the order of their start.

    Threads of libraries in C have the name of proc(5) comm or, if it is that of the process, the names of
    libraries that may have started them; without /proc they are not found.
    """
    own = threading.get_native_id()
    # The application's module, not our copy; a thread of a patched module may have no native_id.
    threads = sys.modules["threading"].enumerate()
    known = {getattr(thread, "native_id", None): thread for thread in threads}
    found = []
    entries = sorted(_numbers("/proc/self/task"))
    if not entries:
        return [_described(thread) for number, thread in known.items() if number != own]
    for entry in entries:
        if entry == own:
            continue
        if entry in known:
            found.append(_described(known[entry]))
        else:
            with suppress(OSError):  # it has exited meanwhile
                found.append(_native(entry))
    return found


def _described(thread: threading.Thread) -> RunningThread:
    kind: type[object] = type(thread)
    plain = kind is sys.modules["threading"].Thread
    target = getattr(thread, "_target", None) if plain else kind
    return RunningThread(thread.name, str(getattr(target, "__module__", "") or ""))


def _native(thread: int) -> RunningThread:
    name = _comm(thread)
    if name != _comm(os.getpid()):
        return RunningThread(f"{name}, of a library in C", _LIBRARY_THREADS.get(name, ""))
    mapped = Path("/proc/self/maps").read_text()
    libraries = [library for part, library in _THREADED.items() if part in mapped]
    names = " or ".join(libraries) or "a library in C"
    return RunningThread(f"one of {names}, without a name")


def _comm(thread: int) -> str:
    return Path(f"/proc/self/task/{thread}/comm").read_text().rstrip("\n")


def lost_threads() -> list[RunningThread]:
    """Return the threads that do not exist in a forked process and are not started there again.

    A child is forked to find out: some libraries stop their threads before a fork (OpenBLAS), others start them
    again after it (OpenTelemetry). Those that are known to be started on demand are left out.
    """
    if not threads():
        return []
    there = Counter(_threads_of_a_child())
    lost = []
    for thread in threads():
        if there[thread.name]:
            there[thread.name] -= 1
        elif not thread.name.startswith(_RESTARTED):
            lost.append(thread)
    return lost


def _threads_of_a_child() -> list[str]:
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which are examined here
        child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.write(write, "\n".join(thread.name for thread in threads()).encode()[:_PIPE])
        os._exit(0)
    os.close(write)
    poll = select.poll()
    poll.register(read, select.POLLIN)
    # A child that blocks on a lock of a thread that was not copied reports nothing: all threads are lost then.
    names = (
        os.read(read, _PIPE).decode(errors="replace") if poll.poll(_CHILD_TIMEOUT * 1000) else ""
    )
    os.close(read)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return names.split("\n") if names else []


def descriptors() -> Descriptors:
    """Return the open descriptors of this process; none without /proc."""
    return frozenset(_descriptors())


def _descriptors() -> Iterator[tuple[int, int, int]]:
    for number in _numbers("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of the listing itself
            status = os.fstat(number)
            yield number, status.st_dev, status.st_ino


def _numbers(folder: str) -> list[int]:
    try:
        return list(map(int, os.listdir(folder)))
    except OSError:
        return []


def connections(excluding: Descriptors = frozenset()) -> list[OpenConnection]:
    """Return the open connections and databases, except those of an earlier `descriptors`.

    Nothing is read from sockets, and no file is opened: closing it would drop SQLite's locks (fcntl(2)).
    """
    numbers = sorted(entry[0] for entry in _descriptors() if entry not in excluding)
    return [found for number in numbers if (found := connection(number)) is not None]


def connection(number: int) -> OpenConnection | None:
    """Return the connection or database of a descriptor; None: it is none, or one of datagrams."""
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISSOCK(mode):
            return _peer(number)
        if stat.S_ISREG(mode) and os.pread(number, len(_SQLITE), 0) == _SQLITE:
            return OpenConnection(number, os.readlink(f"/proc/self/fd/{number}"), "SQLite")
    except OSError:  # closed meanwhile, not connected, or not readable
        pass
    return None


def _peer(number: int) -> OpenConnection | None:
    with socket.socket(fileno=os.dup(number)) as sock:
        if sock.type == socket.SOCK_DGRAM:
            return None  # datagrams of several processes do not mix: syslog, statsd
        address = sock.getpeername()
        if sock.family in {socket.AF_INET, socket.AF_INET6}:
            host, port = address[:2]
            host = f"[{host}]" if sock.family == socket.AF_INET6 else host
            return OpenConnection(number, f"{host}:{port}", _SERVICES.get(port, ""))
        if sock.family == socket.AF_UNIX and address:
            path = os.fsdecode(address).replace("\0", "@")
            if _MANAGER in path:
                return None  # a forked process connects again: see preforkd.linux.exit_handlers
            service = next((name for part, name in _PATHS.items() if part in path), "")
            return OpenConnection(number, path, service)
    return None  # a socketpair of this process, or a socket without a peer
