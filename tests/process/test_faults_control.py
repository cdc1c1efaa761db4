"""Clients of the control socket that are many, loud, rude or not allowed: the service is not harmed."""

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.process.faults import descriptors, get, serve
from tests.process.load import Load
from tests.process.service import Service, free_port

FLOOD = Path(__file__).parents[1] / "flood.py"
STRANGER = 61338
STATUS = b'{"method":"io.preforkd.Manager.GetStatus"}\0'


@pytest.fixture
def service(request):
    """A service in a folder that others may enter."""
    folder = Path(tempfile.mkdtemp(prefix="preforkd-"))
    folder.chmod(0o755)
    service = Service(folder)
    service.socket = str(folder / "io.preforkd.Manager")
    yield service
    try:
        service.finish(request.node)
    finally:
        shutil.rmtree(folder)


def as_stranger(*command):
    """Return a command that runs as somebody who may look and not command."""
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("becoming another user needs root and setpriv")
    return ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", *command]


def connected(service):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(service.socket)
    return sock


def memory(pid):
    """Return the resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


OPEN = "control: {mode: 0666}\n"

IDLE = """
import socket, sys
held = []
for _ in range(1000):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(sys.argv[1])
    held.append(sock)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_thousand_idle_clients(service):
    """Strangers cannot take the seats of those who command; one line tells that some were turned away."""
    serve(service, more=OPEN)
    before = descriptors(service.pid)
    command = as_stranger(sys.executable, "-c", IDLE, service.socket)
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as strangers,
        Load(service.address, rate=100) as load,
    ):
        assert strangers.stdout.readline() == b"held\n"
        assert service.control("status").returncode == 0
        assert service.control("reload", "--fresh").returncode == 0
        assert descriptors(service.pid) < before + 100
        load.wait_for(20)
        strangers.stdin.close()
    assert load.result.lost == 0, load.result.bad
    assert service.log.count("refusing a client of user") <= 3
    service.until(lambda _: descriptors(service.pid) <= before + 2)


def test_a_flood_of_requests(service):
    """A client that asks without reading is heard no more, at no cost; others are answered."""
    serve(service, more=OPEN)
    before = memory(service.pid)
    with connected(service) as sock, Load(service.address, rate=100) as load:
        sock.setblocking(False)
        deadline = time.monotonic() + 20
        while select.select([], [sock], [], 0.5)[1]:
            assert time.monotonic() < deadline
            with contextlib.suppress(BlockingIOError):
                sock.send(STATUS * 100)
        assert service.control("status").returncode == 0
        load.wait_for(50)
        assert service.control("reload", "--fresh").returncode == 0
    assert load.result.lost == 0, load.result.bad
    assert memory(service.pid) - before < 8 << 20
    assert service.control("status").returncode == 0
    assert "connection closed" not in service.log


def test_a_client_that_asks_without_end(service):
    """It wants no answer and writes as fast as it can: others are answered, and the master works."""
    serve(service, more=OPEN)
    before = memory(service.pid)
    command = [sys.executable, FLOOD, service.socket, "io.preforkd.Manager.GetStatus"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        try:
            assert client.stdout.readline() == b"\n"
            with Load(service.address, rate=100) as load:
                for _ in range(10):
                    assert service.control("status").returncode == 0
                assert service.control("reload", "--fresh").returncode == 0
                load.wait_for(50)
            assert client.poll() is None
        finally:
            client.kill()
    assert load.result.lost == 0, load.result.bad
    assert memory(service.pid) - before < 8 << 20


def test_messages_that_are_cut(service):
    """Half a request, none, garbage, too much: each client harms itself only; no descriptor is left."""
    serve(service, more=OPEN)
    before = descriptors(service.pid)
    rude = [
        STATUS[:-9],
        b"",
        b"\0\0\0\0",
        b"\xff\xfe\0",
        b"[" * 30_000 + b"\0",
        b'{"method":"io.preforkd.Manager.Reload","parameters":{"fresh":7}}\0',
        b'{"method":"io.preforkd.Manager.Stop","parameters":"now"}\0',
        b'{"method":"no.such.Thing"}\0',
        b'{"method":5}\0',
        b"x" * 300_000,
        os.urandom(5000) + b"\0",
    ]
    for data in rude * 5:
        with connected(service) as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
    with connected(service) as sock:
        sock.sendall(STATUS[:10])
        with connected(service) as other:
            other.sendall(STATUS)
            assert other.recv(1 << 20).startswith(b'{"parameters"')
        sock.sendall(STATUS[10:])
        answer = b""
        while not answer.endswith(b"\0"):
            answer += sock.recv(1 << 20)
        assert json.loads(answer[:-1])["parameters"]["service"]["state"] == "serving"
    assert get(service.address, "/?id=1")[0] == 200
    service.until(lambda _: descriptors(service.pid) <= before + 2)
    assert "Traceback" not in service.log, service.log


def test_the_wrong_user(service):
    """He sees the status; a reload and a stop are refused with 77, said in the log, and do nothing."""
    serve(service, more=OPEN)

    def control(*arguments):
        command = as_stranger(sys.executable, "-m", "preforkd.cli.preforkctl", *arguments)
        environ = {**os.environ, "RUNTIME_DIRECTORY": str(service.folder)}
        return subprocess.run(command, env=environ, capture_output=True, text=True, cwd="/")

    shown = control("status")
    if "ModuleNotFoundError" in shown.stderr or "Permission denied" in shown.stderr:
        pytest.skip("another user cannot read this checkout")
    assert shown.returncode == 0, shown.stderr
    for command in ("reload", "stop"):
        assert control(command).returncode == 77
    assert "Reload refused to pid" in service.log
    assert f"of user {STRANGER}" in service.log
    assert service.status()["state"] == "serving"
    assert service.status()["generation"] == 1


def test_two_runs_of_one_user(tmp_path):
    """Each has a control socket of its own, which its log names; unnamed, preforkctl touches neither."""
    runs = []
    environ = {"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": str(tmp_path)}

    def control(*arguments):
        command = [sys.executable, "-m", "preforkd.cli.preforkctl", *arguments]
        return subprocess.run(
            command, env={**os.environ, **environ}, capture_output=True, text=True
        )

    try:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            runs.append(Service(tmp_path / name))
            runs[-1].start("--listen", f"127.0.0.1:{free_port()}", environ=environ)
        paths = [tmp_path / f"preforkd/io.preforkd.Manager.{run.pid}" for run in runs]
        assert f"control socket: {paths[0]}" in runs[0].log
        answer = control("stop")
        assert answer.returncode == 2
        assert all(f"--socket {path}" in answer.stderr for path in paths)
        assert control("--socket", str(paths[1]), "stop").returncode == 0
        assert runs[1].wait() == 0
        shown = json.loads(control("status", "--json").stdout)
        assert (shown["pid"], shown["state"]) == (runs[0].pid, "serving")
        runs[0].stop()
        assert control("status").returncode == 75
        assert list((tmp_path / "preforkd").iterdir()) == []
    finally:
        for run in runs:
            run.close()
