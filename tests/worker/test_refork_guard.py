"""The guard of an automatic refork, in processes of their own: what is refused, and what is not."""

import subprocess
import sys

import pytest

CODE = """
import gc, sys
from preforkd.linux import inventory
import random, tempfile, weakref, atexit, mmap, os, socket, threading
{before}
gc.collect()
gc.freeze()
from preforkd.worker.refork_guard import ReforkGuard
guard = ReforkGuard()
with guard.own():
    ours = os.open({path!r}, os.O_WRONLY)
{after}
print(guard.obstacles(own=[{own}]))
"""


def obstacles(after, path, before="", own=""):
    """Return what a guard finds after this code has run in a worker."""
    code = CODE.format(before=before, after=after, path=str(path), own=own)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return run.stdout.strip()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    return path


REFUSED = {
    "a thread": (
        "threading.Thread(target=threading.Event().wait, name='mine', daemon=True).start()",
        "a thread (mine)",
    ),
    "a child": (
        "import subprocess; child = subprocess.Popen(['cat'], stdin=subprocess.PIPE)",
        "a child process (",
    ),
    "a connection": (
        (
            "server = socket.create_server(('127.0.0.1', 0))\n"
            "client = socket.create_connection(server.getsockname())"
        ),
        "an open connection (",
    ),
    "a pair of sockets": ("pair = socket.socketpair()", "an open connection (descriptor "),
    "a pipe": ("pipe = os.pipe()", "an open descriptor ("),
    "a file that is written": ("file = open('PATH', 'a')", "/file)"),
    "a file that is read and written": ("file = open('PATH', 'r+')", "/file)"),
    "shared memory": (
        "memory = mmap.mmap(-1, 4096)",
        "writable memory that is shared with other processes (/dev/zero",
    ),
    "an exit handler": ("atexit.register(print)", "exit handlers (1 of atexit)"),
    "a finalizer": (
        "folder = tempfile.TemporaryDirectory(); folder._finalizer.atexit = True",
        "a finalizer that runs at the exit (",
    ),
    "a random generator": ("chance = random.Random(3)", "a random generator"),
    "a held lock": (
        "class Holder: pass\nholder = Holder(); holder.lock = threading.Lock(); holder.lock.acquire()",
        "a lock that is held",
    ),
}
ACCEPTED = {
    "a cache": "cache = {number: str(number) for number in range(1000)}",
    "a module": "import decimal, csv",
    "a file that is read": "file = open('PATH')",
    "a device": "null = open(os.devnull, 'w')",
    "a directory": "folder = os.open('/', os.O_RDONLY)",
    "datagrams": "log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "a lock that is free": "class Holder: pass\nholder = Holder(); holder.lock = threading.Lock()",
    "a generator that the system feeds": "chance = random.SystemRandom()",
    "names of temporary files": "tempfile.TemporaryFile().close()",
    "a thread that has ended": "thread = threading.Thread(target=int); thread.start(); thread.join()",
    "what was closed": "file = open('PATH', 'a'); file.close()",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, path):
    """It is named, and nothing else is; the same is no obstacle if it is older than the worker."""
    after, expected = REFUSED[case]
    found = obstacles(after.replace("PATH", str(path)), path)
    assert expected in found


@pytest.mark.parametrize(
    "case", ["a connection", "a pipe", "an exit handler", "a random generator"]
)
def test_what_is_older_than_the_worker_is_no_obstacle(case, path):
    """The zygote has it, too."""
    assert obstacles("", path, before=REFUSED[case][0]) == ""


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_is_not_refused(case, path):
    """Two processes may share it, or it is copied."""
    assert obstacles(ACCEPTED[case].replace("PATH", str(path)), path) == ""


def test_descriptors_of_preforkd_are_no_obstacle(path):
    """Neither those that the server has opened, nor those that it names."""
    assert obstacles("read, write = os.pipe()", path, own="read, write") == ""


def test_many_obstacles_are_counted(path):
    """Five are named."""
    found = obstacles("pipes = [os.pipe() for _ in range(4)]", path)
    assert found.count("an open descriptor") == 5
    assert found.endswith(", and 3 more")
