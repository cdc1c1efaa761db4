"""What is found of threads, connections and databases in this very process."""

import ctypes
import os
import socket
import sqlite3
import subprocess
import sys
import threading

import pytest

from preforkd.linux import inventory


@pytest.fixture
def before():
    """What is open before the test opens something."""
    return inventory.descriptors()


def test_threads_by_name():
    """A thread of Python's by its own name; it is gone when it has ended."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="metrics-flusher")
    thread.start()
    assert inventory.RunningThread("metrics-flusher", "threading") in inventory.threads()
    stop.set()
    thread.join()
    assert "metrics-flusher" not in {thread.name for thread in inventory.threads()}


@pytest.fixture
def native():
    """Start a thread that Python does not know, and name it."""
    libc = ctypes.CDLL(None)
    libc.pthread_setname_np.argtypes = [ctypes.c_ulong, ctypes.c_char_p]
    libc.pthread_cancel.argtypes = [ctypes.c_ulong]
    libc.pthread_join.argtypes = [ctypes.c_ulong, ctypes.c_void_p]
    pause = ctypes.cast(libc.pause, ctypes.c_void_p)
    started = []

    def start(name):
        handle = ctypes.c_ulong()
        assert libc.pthread_create(ctypes.byref(handle), None, pause, None) == 0
        started.append(handle)
        if name:
            libc.pthread_setname_np(handle, name)

    yield start
    for handle in started:
        libc.pthread_cancel(handle)
        libc.pthread_join(handle, None)


def test_threads_that_python_does_not_know(native):
    """One that a library in C started goes by the name that the kernel has for it; gRPC's are known."""
    known = len(inventory.threads())
    native(b"in-c")
    native(b"event_engine")
    found = inventory.threads()
    assert len(found) == known + 2
    assert inventory.RunningThread("in-c, of a library in C") in found
    assert inventory.RunningThread("event_engine, of a library in C", "grpc") in found


def test_a_thread_without_a_name_is_not_given_ours(native, monkeypatch):
    """It would have that of the process; the libraries that may have started it are named instead."""
    monkeypatch.setattr(inventory, "_THREADED", {"/no-such-library": "Nobody"})
    name = inventory.RunningThread("one of a library in C, without a name")
    before = inventory.threads().count(name)  # pytest-xdist has one
    native(b"")
    assert inventory.threads().count(name) == before + 1
    monkeypatch.setattr(inventory, "_THREADED", {"/libc": "the C library", "[heap]": "the heap"})
    name = inventory.RunningThread("one of the C library or the heap, without a name")
    assert inventory.threads().count(name) == before + 1


LOST = """
import os, sys, threading
from preforkd.linux import inventory

assert inventory.lost_threads() == []
stop = threading.Event()

def start(name):
    threading.Thread(target=stop.wait, name=name, daemon=True).start()

start("poller")
start("exporter")
start("exporter")
start("sentry.monitor")
os.register_at_fork(after_in_child=lambda: start("exporter"))
assert [thread.name for thread in inventory.lost_threads()] == ["poller", "exporter"]
# A library that ends its threads before a fork has none to lose.
ended = threading.Event()
thread = threading.Thread(target=ended.wait, name="pool")
thread.start()
os.register_at_fork(before=lambda: (ended.set(), thread.join()))
assert [thread.name for thread in inventory.lost_threads()] == ["poller", "exporter"]
# One whose child hangs is answered for all the same.
inventory._CHILD_TIMEOUT = 0.2
parent = os.getpid()
os.register_at_fork(after_in_child=lambda: threading.Event().wait())
assert [thread.name for thread in inventory.lost_threads()] == ["poller", "exporter", "exporter"]
assert os.getpid() == parent
print("seen")
"""


def test_threads_that_are_lost_by_a_fork():
    """Those that are there again in a child, or ended before the fork, or known to be started later, are not."""
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", LOST],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "seen\n", done.stderr


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_connections_by_their_peer(before, family, address):
    """Both ends of one over the loopback; the listener has no peer and is none."""
    with (
        socket.create_server((address, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
        listener.accept()[0] as server,
    ):
        ports = {client.fileno(): listener, server.fileno(): client}
        found = {found.descriptor: found.peer for found in inventory.connections(excluding=before)}
        host = "[::1]" if family == socket.AF_INET6 else "127.0.0.1"
        assert found == {
            number: f"{host}:{sock.getsockname()[1]}" for number, sock in ports.items()
        }
        assert client.fileno() >= 0  # looking has closed nothing
        client.sendall(b"x")
        assert server.recv(1) == b"x"


def test_unix_connections_and_what_they_probably_are(before, tmp_path):
    """PostgreSQL's socket is known by its name; a pair of sockets and a datagram's are none."""
    path = str(tmp_path / ".s.PGSQL.5432")
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with datagrams, socket.socket(socket.AF_UNIX) as client:
            datagrams.connect(("127.0.0.1", 5432))
            client.connect(path)
            (found,) = inventory.connections(excluding=before)
            assert str(found) == f"descriptor {client.fileno()}, {path}, probably PostgreSQL"


def test_sqlite_by_its_header_and_with_its_locks(before, tmp_path):
    """An open database is found, an ordinary file is not, and the database's lock survives the look."""
    path = str(tmp_path / "shop.db")
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("create table t (x)")
    database.execute("begin exclusive")
    try:
        with (tmp_path / "text").open("w+") as file:
            file.write("no database at all")
            file.flush()
            (found,) = inventory.connections(excluding=before)
        assert (found.peer, found.service) == (path, "SQLite")
        code = f"import sqlite3; d = sqlite3.connect({path!r}, timeout=0); d.execute('begin exclusive')"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "database is locked" in other.stderr
    finally:
        database.close()


def test_earlier_descriptors_are_excluded(before):
    """And a number that has been used again for something else is."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as first,
    ):
        known = inventory.descriptors()
        assert inventory.connections(excluding=known) == []
        number = first.fileno()
        with socket.create_connection(listener.getsockname()) as second:
            os.dup2(second.fileno(), number)
            found = {found.descriptor for found in inventory.connections(excluding=known)}
            assert number in found


def test_without_proc_nothing_is_found_but_pythons_own(monkeypatch):
    """No /proc, or one that may not be read: threads by Python's names, no descriptors, no error."""

    def refuse(path):
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(os, "listdir", refuse)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="metrics-flusher")
    thread.start()
    try:
        assert "metrics-flusher" in {thread.name for thread in inventory.threads()}
        assert threading.current_thread().name not in inventory.threads()
        assert inventory.descriptors() == frozenset()
        assert inventory.connections() == []
    finally:
        stop.set()
        thread.join()


def test_managers_of_multiprocessing_are_not_reported(before, tmp_path):
    """Each newborn process gets a connection of its own to them."""
    folder = tmp_path / "pymp-x"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(folder / "listener-x"))
        listener.listen()
        client.connect(str(folder / "listener-x"))
        assert inventory.connections(excluding=before) == []
