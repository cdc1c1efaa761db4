"""What a fork does not take along, or makes two processes share: threads, connections, databases.

fork(2), proc(5)
"""

import os
import socket
import stat
import sys
import threading
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
"""Where databases and their like listen by convention."""
_PATHS = {".s.PGSQL.": "PostgreSQL", "mysql": "MySQL", "maria": "MariaDB", "redis": "Redis"}
_SQLITE = b"SQLite format 3\0"

Descriptors = frozenset[tuple[int, int, int]]
"""Number, device and inode of each."""


class Connection(Struct, frozen=True):
    """An open descriptor with somebody or something at its other end.

    ``peer`` is an address or a path; ``service`` is the database that it probably is, or empty.
    """

    descriptor: int
    peer: str
    service: str

    def __str__(self) -> str:
        service = f", probably {self.service}" if self.service else ""
        return f"descriptor {self.descriptor}, {self.peer}{service}"


def threads() -> list[str]:
    """Return the names of this process's other threads, in the order of their start.

    Those that Python does not know (of libraries in C) are named as the kernel does, proc(5) comm;
    without /proc they are not found.
    """
    own = threading.get_native_id()
    # The application's module, of which ours may have a copy; and one that was patched may have no numbers.
    threads = sys.modules["threading"].enumerate()
    known = {getattr(thread, "native_id", None): thread.name for thread in threads}
    found = []
    entries = sorted(_numbers("/proc/self/task"))
    if not entries:
        return [name for number, name in known.items() if number != own]
    for entry in entries:
        if entry == own:
            continue
        name = known.get(entry)
        if name is None:
            with suppress(OSError):  # it has ended meanwhile
                name = Path(f"/proc/self/task/{entry}/comm").read_text().rstrip("\n") + " (native)"
        if name is not None:
            found.append(name)
    return found


def descriptors() -> Descriptors:
    """Return what is open in this process; nothing without /proc."""
    return frozenset(_descriptors())


def _descriptors() -> Iterator[tuple[int, int, int]]:
    for number in _numbers("/proc/self/fd"):
        with suppress(OSError):  # the one that listed them
            status = os.fstat(number)
            yield number, status.st_dev, status.st_ino


def _numbers(folder: str) -> list[int]:
    try:
        return list(map(int, os.listdir(folder)))
    except OSError:
        return []


def connections(but: Descriptors = frozenset()) -> list[Connection]:
    """Return the open connections and the open databases, but those of an earlier `descriptors`.

    Nothing is read from the sockets, and no file is opened: closing it would drop the locks that
    SQLite holds on it (fcntl(2)).
    """
    numbers = sorted(entry[0] for entry in _descriptors() if entry not in but)
    return [found for number in numbers if (found := _connection(number)) is not None]


def _connection(number: int) -> Connection | None:
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISSOCK(mode):
            return _peer(number)
        if stat.S_ISREG(mode) and os.pread(number, len(_SQLITE), 0) == _SQLITE:
            return Connection(number, os.readlink(f"/proc/self/fd/{number}"), "SQLite")
    except OSError:  # closed meanwhile, not connected, or not readable
        pass
    return None


def _peer(number: int) -> Connection | None:
    with socket.socket(fileno=os.dup(number)) as sock:
        if sock.type == socket.SOCK_DGRAM:
            return None  # each datagram goes by itself, to syslog or a collector of metrics
        address = sock.getpeername()
        if sock.family in {socket.AF_INET, socket.AF_INET6}:
            host, port = address[:2]
            host = f"[{host}]" if sock.family == socket.AF_INET6 else host
            return Connection(number, f"{host}:{port}", _SERVICES.get(port, ""))
        if sock.family == socket.AF_UNIX and address:
            path = os.fsdecode(address).replace("\0", "@")
            service = next((name for part, name in _PATHS.items() if part in path), "")
            return Connection(number, path, service)
    return None  # a pair of this process's own, or something that has no peer
