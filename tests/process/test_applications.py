"""Applications of each kind, served by the installed program."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.load import Load
from tests.process.service import HERE, ask, free_port, read_all

ASGI = """
import asyncio, os
state = {}

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        if os.environ.get("BREAK"):
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        state["started"] = True
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        with open("shutdowns", "a") as file:
            file.write("x")
        await send({"type": "lifespan.shutdown.complete"})
        return
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    if scope["path"] == "/events":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            part = {"type": "http.response.body", "body": b"data: x\\n\\n", "more_body": True}
            await send(part)
            await asyncio.sleep(0.1)
    query = scope["query_string"].decode()
    body = f"{query} started={state.get('started')} length={length}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

IMPORTS = """
import os, sys
shared = set()
os.register_at_fork(before=lambda: shared.update(sys.modules))

def application(environ, start_response):
    start_response("200 OK", [])
    return [("own: " + " ".join(sorted(set(sys.modules) - shared))).encode()]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        body = ("own: " + " ".join(sorted(set(sys.modules) - shared))).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
    else:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

def stream(connection, peer):
    connection.sendall(("own: " + " ".join(sorted(set(sys.modules) - shared))).encode())
"""


@pytest.fixture
def asgi(service, tmp_path):
    """An ASGI application, ready."""
    (tmp_path / "asgi_site.py").write_text(ASGI)
    service.port = free_port()
    service.start(
        "asgi:asgi_site:application",
        "--directory",
        str(tmp_path),
        "--listen",
        f"127.0.0.1:{service.port}",
    )
    return service


def test_asgi_with_its_lifespan(asgi, tmp_path):
    """Start-up before ready, bodies whole, a shutdown in each worker at the end."""
    answer = ask(("127.0.0.1", asgi.port), "/?id=1")
    assert b"id=1 started=True length=0" in answer
    assert asgi.stop() == 0
    assert (tmp_path / "shutdowns").read_text() == "xxxx"


def test_events_without_an_end_do_not_keep_asgi_from_its_shutdown(asgi, tmp_path):
    """Not at a stop: they are cancelled before the worker would be killed."""
    asgi.stop()
    asgi.configure(
        f"app:\n  target: asgi:asgi_site:application\n  directory: {tmp_path}\n"
        f"listen: 127.0.0.1:{asgi.port}\nworkers: 1\ntimeouts: {{drain: 4s}}\n"
    )
    asgi.start("--config", str(asgi.config))
    shutdowns = len((tmp_path / "shutdowns").read_text())
    with socket.create_connection(("127.0.0.1", asgi.port), timeout=20) as events:
        events.sendall(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
        assert events.recv(10)
        assert asgi.stop() == 0
    assert len((tmp_path / "shutdowns").read_text()) == shutdowns + 1


def test_asgi_loses_nothing_at_reloads(asgi):
    """Five reloads under load: every answer is whole."""
    with Load(("127.0.0.1", asgi.port), rate=200) as load:
        for _ in range(5):
            answer = asgi.control("reload", "--fresh")
            assert answer.returncode == 0, answer.stderr
            load.wait_for(30)
    assert load.result.lost == 0, load.result.bad


def test_asgi_requests_do_not_wait_for_each_other(asgi):
    """Four requests that take a second each are served by one worker in less than four."""
    asgi.control("status")
    asgi.manager.forget()
    import threading

    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(("127.0.0.1", asgi.port), "/slow?id=1")))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(answers) == 12
    assert all(b"200 OK" in answer for answer in answers)


def test_a_lifespan_that_fails_ends_the_start(asgi, tmp_path):
    """A worker that says why it cannot start is retried for timeouts.start; the reason is told."""
    asgi.configure(
        f"app:\n  target: asgi:asgi_site:application\n  directory: {tmp_path}\n"
        f"  environment: {{BREAK: yes}}\nlisten: 127.0.0.1:{asgi.port}\n"
        "timeouts: {start: 5s}\n"
    )
    asgi.stop()
    asgi.start("--config", str(asgi.config), ready=False)
    assert asgi.wait() == 69
    assert "lifespan startup failed" in asgi.log
    assert "no database" in asgi.log


def test_an_application_that_meddles_with_signals(service):
    """Ignored SIGCHLD and SIGTERM and a stdout that is None keep nobody from forking or leaving."""
    port = free_port()
    service.start(
        *("wsgi:echo:application", "--directory", str(HERE), "--listen", f"127.0.0.1:{port}"),
        environ={"BREAK": "signals"},
    )
    assert b"id=1" in ask(("127.0.0.1", port))
    assert service.control("reload", "--fresh").returncode == 0
    assert service.stop() == 0
    assert "is killed" not in service.log


def test_a_socketserver_class(service, tmp_path):
    """A BaseRequestHandler subclass of the standard library is served as it is."""
    (tmp_path / "upper.py").write_text(
        "import socketserver\n"
        "class Upper(socketserver.StreamRequestHandler):\n"
        "    def handle(self):\n"
        "        self.wfile.write(self.rfile.readline().upper())\n"
    )
    port = free_port()
    service.start(
        "stream:upper:Upper", "--directory", str(tmp_path), "--listen", f"127.0.0.1:{port}"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"hello\n")
        assert sock.recv(99) == b"HELLO\n"


def test_another_interpreter(service, tmp_path):
    """The zygote runs where app.python says, in an environment that has no preforkd."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin/python"
    (tmp_path / "which.py").write_text(
        "import sys\n"
        "def handle(connection, peer):\n"
        "    connection.sendall(sys.prefix.encode() + b'\\n')\n"
    )
    port = free_port()
    service.start(
        *("stream:which:handle", "--directory", str(tmp_path), "--python", str(python)),
        *("--listen", f"127.0.0.1:{port}"),
    )
    assert read_all(("127.0.0.1", port)).decode().strip() == str(environment)


BESIDE = """
import importlib.util, json, sys

def found(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False

NAMES = ["msgspec", "msgspec.json", "pytest", "hypothesis", "yaml", "preforkd"]
SEEN = {name: found(name) for name in NAMES}

def application(environ, start_response):
    start_response("200 OK", [])
    return [json.dumps([SEEN, {name: found(name) for name in NAMES}, sys.path]).encode()]
"""


def test_another_interpreter_sees_one_library_of_ours(service, tmp_path):
    """Of what is installed beside preforkd only what it needs itself, while loading and in a worker."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (tmp_path / "beside.py").write_text(BESIDE)
    port = free_port()
    service.start(
        *("wsgi:beside:application", "--directory", str(tmp_path)),
        *("--python", str(environment / "bin/python"), "--listen", f"127.0.0.1:{port}"),
    )
    body = ask(("127.0.0.1", port)).partition(b"\r\n\r\n")[2]
    while_loading, in_worker, path = json.loads(body)
    assert while_loading == in_worker
    ours = {"msgspec", "msgspec.json", "preforkd"}
    assert {name for name, found in in_worker.items() if found} == ours
    assert str(Path(pytest.__file__).parent.parent) not in path


def test_an_interpreter_that_cannot_be_used(service, tmp_path):
    """One that is no Python fails with the setting's name."""
    port = free_port()
    service.start(
        *("--python", "/bin/false", "--listen", f"127.0.0.1:{port}"),
        ready=False,
    )
    assert service.wait() in {69, 78}
    assert "/bin/false" in service.log or "exited while loading" in service.log


def test_stream_connections_lose_nothing_at_reloads(service):
    """Ten reloads of the demo under load: each connection gets its whole line."""
    port = free_port()
    service.start("--listen", f"127.0.0.1:{port}")
    with Load(("127.0.0.1", port), keep_alive=0, stream=True) as load:
        for _ in range(10):
            assert service.control("reload", "--fresh").returncode == 0
            load.wait_for(30)
    assert load.result.lost == 0, load.result.bad


def test_many_clients_at_once_are_all_served(service):
    """200 simultaneous connections to two workers: nobody is refused."""
    port = free_port()
    service.configure(
        f"app: {{target: 'wsgi:echo:application', directory: {HERE}}}\n"
        f"listen: 127.0.0.1:{port}\nworkers: 2\n"
    )
    service.start("--config", str(service.config))
    socks = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(200)]
    for number, sock in enumerate(socks):
        sock.sendall(f"GET /?id={number} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    for number, sock in enumerate(socks):
        data = b""
        while piece := sock.recv(65536):
            data += piece
        assert re.search(rb"id=%d pid=\d+\n$" % number, data)
        sock.close()


@pytest.mark.parametrize("target", ["wsgi:own:application", "asgi:own:asgi", "stream:own:stream"])
def test_workers_share_what_they_run(service, tmp_path, target):
    """A worker that has served imported nothing after the fork: each module would be its own copy."""
    (tmp_path / "own.py").write_text(IMPORTS)
    port = free_port()
    service.start(target, "--directory", str(tmp_path), "--listen", f"127.0.0.1:{port}")
    address = ("127.0.0.1", port)
    answer = read_all(address) if target.startswith("stream") else ask(address)
    assert re.search(rb"own: ([^\r]*)", answer)[1] == b""
