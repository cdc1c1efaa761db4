"""Applications that meddle with their process, in a request or at import."""

import os
import signal
import socket
import time

import pytest

from tests.process.faults import get, serve, settle, state_of, whole_again
from tests.process.service import children_of


@pytest.mark.parametrize("how", ["orphan", "program", "thread", "umask", "chdir", "ignore-signals"])
def test_what_an_application_may_do_to_its_worker(service, how):
    """The request is answered, the worker serves on, it is replaced by a reload, and leaves nobody."""
    serve(service, workers=1)
    before = set(service.workers())
    assert get(service.address, f"/fault?{how}")[0] == 200
    assert get(service.address, "/?id=1")[0] == 200
    assert set(service.workers()) == before
    assert service.control("reload", "--fresh").returncode == 0
    whole_again(service, 1, before)
    assert "is killed" not in service.log


@pytest.mark.parametrize("how", ["umask", "chdir", "ignore-signals", "thread", "program", "orphan"])
def test_what_an_application_may_do_at_import(service, how):
    """It loads, serves, keeps a large body, reloads, and ends when it is told to."""
    serve(service, workers=1, variables={"BREAK": how}, more="http: {spool: 1K}\n")
    before = set(service.workers())
    assert get(service.address, "/?id=1")[0] == 200
    with socket.create_connection(service.address, timeout=30) as sock:
        sock.sendall(
            b"POST /?id=2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9000\r\n\r\n"
            + b"x" * 9000
        )
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    assert b" 200 " in answer
    assert b"length=9000" in answer
    assert service.control("reload", "--fresh").returncode == 0
    whole_again(service, 1, before)
    assert service.stop() == 0
    assert "is killed" not in service.log


@pytest.mark.parametrize("how", ["_exit", "exit", "close-all", "raise"])
def test_what_an_application_must_not_do_at_import(service, how):
    """The service does not start, says why, and a reload to it is refused."""
    serve(service, variables={"BREAK": how}, ready=False)
    assert service.wait() == 69
    words = {
        "_exit": "exited while loading the application: exit status 5",
        "exit": "importing faulty failed: SystemExit: 0",
        "close-all": "closed",
        "raise": "RuntimeError: the application cannot go on",
    }
    assert words[how] in service.log


def test_a_child_that_comes_back_from_the_application(service):
    """A child that the application forks and lets return serves nobody: one answer, from the worker."""
    serve(service, workers=1)
    (worker,) = service.workers()
    status, body = get(service.address, "/fault?fork-and-return")
    assert status == 200
    assert f"pid={worker} ".encode() in body
    for _ in range(20):
        assert f"pid={worker} ".encode() in get(service.address, "/?id=1")[1]
    # It has ended, and waits for the application to ask how: that is nobody else's business.
    service.until(lambda _: {state_of(pid) for pid in children_of(worker)} == {"Z"})
    assert "returned into the worker's code; terminated" in service.log
    assert service.control("reload", "--fresh").returncode == 0
    whole_again(service, 1, {worker})


ASGI = """
import os, time

async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/fork" and os.fork() == 0:
        time.sleep(0.2)
    body = f"pid={os.getpid()} ".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


def test_a_child_that_comes_back_from_an_asgi_application(service, tmp_path):
    """The same holds there: each answer is the worker's, and the child ends."""
    (tmp_path / "forking.py").write_text(ASGI)
    serve(service, workers=1, target="asgi:forking:application", directory=str(tmp_path))
    (worker,) = service.workers()
    for path in ("/fork", "/", "/fork", *["/"] * 10):
        assert get(service.address, path) == (200, f"pid={worker} ".encode())
    service.until(lambda _: {state_of(pid) for pid in children_of(worker)} == {"Z"})
    assert service.control("reload", "--fresh").returncode == 0
    whole_again(service, 1, {worker})


def test_a_child_that_outlives_the_request(service):
    """A child that the application forks keeps no connection open, and no port."""
    serve(service, workers=1)
    begun = time.monotonic()
    with socket.create_connection(service.address, timeout=30) as sock:
        sock.sendall(b"GET /fault?fork-and-stay HTTP/1.0\r\n\r\n")
        while sock.recv(65536):
            pass
    child = int((service.folder / "child").read_text())
    try:
        assert time.monotonic() - begun < 30
        assert service.stop() == 0
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(service.address)
            sock.listen()
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("how", ["fork-and-return", "fork-and-stay"])
def test_a_child_that_is_forked_at_import(service, how):
    """It is no zygote, keeps no port, and one that goes on as its parent does is ended."""
    serve(service, workers=1, variables={"BREAK": how})
    assert get(service.address, "/?id=1")[0] == 200
    assert service.control("reload", "--fresh").returncode == 0
    assert get(service.address, "/?id=1")[0] == 200
    if how == "fork-and-return":
        ended = "ending a process that the application forked while it was loaded"
        service.until(lambda _: service.log.count(ended) == 2)
    assert service.stop() == 0
    if how == "fork-and-stay":
        os.kill(int((service.folder / "child").read_text()), signal.SIGKILL)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(service.address)
        sock.listen()


RANDOM = """
import os, random
random.seed(1)
own = random.Random(1)
try:
    import numpy
except ImportError:
    numpy = None
else:
    numpy.random.seed(1)

def application(environ, start_response):
    start_response("200 OK", [])
    numbers = [random.random()]
    if numpy is not None:
        numbers.append(float(numpy.random.random()))
    return [f"{os.getpid()} {numbers}".encode()]
"""


def test_workers_do_not_share_random_numbers(service, tmp_path):
    """Seeded at import, each worker draws numbers of its own; with numpy, if there is one, as well."""
    (tmp_path / "dice.py").write_text(RANDOM)
    serve(service, workers=4, target="wsgi:dice:application", directory=str(tmp_path))
    first = {}
    deadline = time.monotonic() + 30
    while len(first) < 4:
        assert time.monotonic() < deadline
        pid, _, numbers = get(service.address, "/")[1].decode().partition(" ")
        first.setdefault(pid, numbers.strip("[]").split(", "))
    for numbers in zip(*first.values(), strict=True):
        assert len(set(numbers)) == 4, first


def test_an_application_that_starts_threads_at_import_is_warned(service, tmp_path):
    """The warning tells that the threads are not there in the workers; the workers serve."""
    (tmp_path / "threaded.py").write_text(
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, name='cleaner', daemon=True).start()\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'ok']\n"
    )
    serve(service, workers=1, target="wsgi:threaded:application", directory=str(tmp_path))
    assert get(service.address, "/?id=1")[0] == 200
    assert "thread" in service.log
    assert "they do not exist in the workers" in service.log


CONNECTED = """
import os, socket

def connect():
    global database
    database = socket.create_connection(("127.0.0.1", int(os.environ["DATABASE"])))

connect()
before = database.getsockname()[1]

class Hooks:
    @staticmethod
    def after_fork():
        database.close()
        connect()

def application(environ, start_response):
    start_response("200 OK", [])
    return [f"{os.getpid()} {before} {database.getsockname()[1]}".encode()]
"""


def test_a_connection_that_is_opened_before_the_fork(service, tmp_path):
    """It is named in a warning, all workers share it; with the hook after_fork each has its own."""
    (tmp_path / "connected.py").write_text(CONNECTED)
    with socket.create_server(("127.0.0.1", 0)) as database:
        port = database.getsockname()[1]
        how = {
            "workers": 3,
            "target": "wsgi:connected:application",
            "directory": str(tmp_path),
            "variables": {"DATABASE": str(port)},
        }
        serve(service, **how)
        before, ports = connections_of(service, 3)
        assert ports == {before}
        assert "the application has left a connection open while it was loaded" in service.log
        assert f", 127.0.0.1:{port}): all workers would use this one at once" in service.log
        settle(service, **how, more="hooks: connected:Hooks\n")
        assert service.control("reload").returncode == 0
        service.until(lambda status: len(status["workers"]) == 3)
        before, ports = connections_of(service, 3)
        assert before not in ports
        assert len(ports) == 3


def connections_of(service, workers):
    """Return the client's port from before the fork, and those that the workers have now."""
    seen = {}
    deadline = time.monotonic() + 30
    while len(seen) < workers:
        assert time.monotonic() < deadline, seen
        pid, before, now = map(int, get(service.address, "/")[1].split())
        seen[pid] = now
    return before, set(seen.values())
