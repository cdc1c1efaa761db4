"""Start, stop and everything that can happen to one of the processes in between."""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest

from tests.process.load import Load
from tests.process.service import HERE, ask, children_of, free_port, read_all, wait_until_gone
from tests.worker.certificate import CERTIFICATE, KEY

ECHO = f"{{target: 'wsgi:echo:application', directory: {HERE}}}"


@pytest.fixture
def echo(service):
    """The echo application on a port of its own, ready."""
    service.port = free_port()
    service.address = ("127.0.0.1", service.port)
    service.start(
        "wsgi:echo:application",
        "--directory",
        str(HERE),
        "--listen",
        f"127.0.0.1:{service.port}",
    )
    return service


def test_the_demo_greets_and_names_the_worker(service):
    """Without a file, `preforkd run` serves a greeting that names the worker that answered."""
    port = free_port()
    service.start("--listen", f"127.0.0.1:{port}")
    greeting = read_all(("127.0.0.1", port)).decode()
    match = re.fullmatch(
        r"Hello from preforkd worker \d+ \(pid (\d+)\), connection \d+\r\n", greeting
    )
    assert match
    assert int(match[1]) in service.workers()


def test_ready_is_said_when_the_floor_accepts(service):
    """READY=1 comes with a STATUS that counts every worker, and a connection is served at once."""
    port = free_port()
    service.start("--listen", f"127.0.0.1:{port}", "--workers", "3", ready=False)
    message = service.manager.wait_for("READY", "1")
    assert message["STATUS"] == "3 of 3 workers ready, 0 busy, generation 1"
    assert read_all(("127.0.0.1", port)).startswith(b"Hello")
    assert len(service.workers()) == 3


def test_each_worker_gets_its_share(service):
    """400 connections, one after the other, are spread evenly over four workers."""
    port = free_port()
    service.start("--listen", f"127.0.0.1:{port}", "--workers", "4")
    counts = {}
    for _ in range(400):
        pid = re.search(rb"pid (\d+)", read_all(("127.0.0.1", port)))[1]
        counts[pid] = counts.get(pid, 0) + 1
    assert len(counts) == 4
    assert min(counts.values()) > 60, counts


def test_a_stop_lets_running_requests_finish(echo):
    """SIGTERM during a request: the answer is whole, STOPPING and EXTEND_TIMEOUT_USEC are said."""
    answers = []
    slow = threading.Thread(target=lambda: answers.append(ask(echo.address, "/slow?for=1.5")))
    slow.start()
    echo.until(lambda status: status["busy"] == 1)
    assert echo.stop() == 0
    slow.join()
    assert answers[0].startswith(b"HTTP/1.1 200 OK")
    # What systemctl status shows of the dead unit.
    echo.manager.wait_for("STATUS", "stopped")
    said = [name for message in echo.manager.messages for name in message]
    assert "STOPPING" in said
    assert "EXTEND_TIMEOUT_USEC" in said


@pytest.mark.parametrize("quick", [False, True])
def test_preforkctl_stop_returns_when_the_master_has_ended(echo, quick):
    """Not before; quickly if that was asked for."""
    stopped = echo.control("stop", *(["--quick"] if quick else []))
    assert stopped.returncode == 0, stopped.stderr
    assert echo.process.poll() == 0
    assert "Stop by pid" in echo.log


def test_a_drain_ends_with_its_timeout(service):
    """A request that outlasts timeouts.drain is cut off by SIGKILL, and the service ends."""
    port = free_port()
    service.configure(
        f"app: {{target: 'wsgi:echo:application', directory: {HERE}}}\n"
        f"listen: 127.0.0.1:{port}\ntimeouts: {{drain: 500ms}}\n"
    )
    service.start("--config", str(service.config))
    answers = []
    slow = threading.Thread(target=lambda: answers.append(ask(("127.0.0.1", port), "/slow?for=60")))
    slow.start()
    service.until(lambda status: status["busy"] == 1)
    assert service.stop() == 0
    slow.join()
    assert answers == [b""]
    assert "did not exit within 0.5 s" in service.log


def test_a_second_signal_is_quick(echo):
    """SIGTERM, then SIGINT: nobody is waited for."""
    slow = threading.Thread(target=lambda: ask(echo.address, "/slow?for=60"))
    slow.start()
    echo.until(lambda status: status["busy"] == 1)
    os.kill(echo.pid, signal.SIGTERM)
    echo.manager.wait_for("STOPPING", "1")
    os.kill(echo.pid, signal.SIGINT)
    assert echo.wait() == 0
    slow.join()


def test_one_wish_that_is_sent_twice_is_one(echo):
    """timeout(1) signals the process and then its group: the stop stays graceful."""
    answers = []
    slow = threading.Thread(target=lambda: answers.append(ask(echo.address, "/slow?for=1")))
    slow.start()
    echo.until(lambda status: status["busy"] == 1)
    for _ in range(2):
        os.kill(echo.pid, signal.SIGTERM)
    assert echo.wait() == 0
    slow.join()
    assert answers[0].startswith(b"HTTP/1.1 200 OK")


def test_a_killed_master_leaves_nobody_behind(echo):
    """SIGKILL of the master: the running request is answered, then every process has gone."""
    processes = children_of(echo.pid)
    assert len(processes) >= 5
    answers = []
    slow = threading.Thread(target=lambda: answers.append(ask(echo.address, "/slow?for=3")))
    slow.start()
    echo.until(lambda status: status["busy"] == 1)
    os.kill(echo.pid, signal.SIGKILL)
    echo.wait()
    wait_until_gone(processes)
    slow.join()
    assert answers[0].startswith(b"HTTP/1.1 200 OK")


def test_a_dead_worker_is_replaced_at_once(echo):
    """A worker that the application takes down is replaced, and the log says how it ended."""
    before = set(echo.workers())
    assert ask(echo.address, "/die") == b""
    status = echo.until(
        lambda status: status["ready"] == 4 and {row["pid"] for row in status["workers"]} != before
    )
    assert status["generation"] == 1
    assert "exited: exit status 3" in echo.log


def test_a_stopped_zygote_is_replaced_without_touching_the_workers(echo):
    """The zygote's death changes no worker, and the next one forks again."""
    workers = set(echo.workers())
    os.kill(echo.zygote(), signal.SIGKILL)
    echo.until(
        lambda status: (
            status["generations"][0]["zygote_state"] == "ready"
            and "loaded the application" in echo.log.partition("killed by SIGKILL")[2]
        )
    )
    assert set(echo.workers()) == workers
    os.kill(workers.pop(), signal.SIGKILL)
    echo.until(lambda status: status["ready"] == 4)


def test_the_application_cannot_take_itself_for_the_service(service, tmp_path):
    """LISTEN_*, NOTIFY_SOCKET and WATCHDOG_* are gone, app.environment is there."""
    (tmp_path / "shows.py").write_text(
        "import os\n"
        "def handle(connection, peer):\n"
        "    connection.sendall(repr(dict(os.environ)).encode())\n"
    )
    port = free_port()
    service.configure(
        f"app:\n  target: stream:shows:handle\n  directory: {tmp_path}\n"
        f"  environment: {{COLOUR: on}}\nlisten: 127.0.0.1:{port}\n"
    )
    environ = {"WATCHDOG_USEC": "30000000", "LISTEN_FDS": "0", "LISTEN_PID": "1"}
    service.start("--config", str(service.config), environ=environ)
    shown = read_all(("127.0.0.1", port)).decode()
    assert "'COLOUR': 'on'" in shown
    assert "'PREFORKD_WORKER'" in shown
    for name in ("LISTEN_", "NOTIFY_SOCKET", "WATCHDOG"):
        assert name not in shown


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["wsgi:no_such:app"], 78, "there is no module named 'no_such'"),
        (["wsgi:echo:missing"], 78, "has no attribute 'missing'"),
        (["wsgi:echo"], 78, "KIND:MODULE:ATTRIBUTE"),
        (["--config", "/no/such/file.yaml"], 78, "cannot be read"),
        (["--listen", "192.0.2.1:80"], 71, "cannot be bound"),
        (["--workers", "0"], 78, "out of range"),
    ],
)
def test_a_start_that_fails_ends_with_the_status_of_who_has_to_act(
    service, arguments, status, words
):
    """Exit status by blame, and one clear line."""
    if "--listen" not in arguments:
        arguments = [*arguments, "--listen", f"127.0.0.1:{free_port()}"]
    service.start(*arguments, "--directory", str(HERE), ready=False)
    assert service.wait() == status
    assert words in service.log
    assert "Traceback" not in service.log


def test_an_application_that_fails_shows_its_own_traceback(service):
    """The traceback begins with the application's own frame; the status is 69."""
    service.start(
        "wsgi:echo:application",
        "--directory",
        str(HERE),
        "--listen",
        f"127.0.0.1:{free_port()}",
        environ={"BREAK": "import"},
        ready=False,
    )
    assert service.wait() == 69
    assert "does not want to be imported" in service.log
    assert "echo.py" in service.log
    assert "importlib" not in service.log
    assert "module search path" in service.log


def test_workers_that_die_at_start_are_retried_with_delays(service):
    """At the first start there is no spinning: a few tries until timeouts.start, then the end."""
    service.configure(
        f"app:\n  target: wsgi:echo:application\n  directory: {HERE}\n"
        f"  environment: {{BREAK: worker-dies}}\nlisten: 127.0.0.1:{free_port()}\n"
        "workers: 1\ntimeouts: {start: 5s}\n"
    )
    service.start("--config", str(service.config), ready=False)
    assert service.wait() == 69
    assert 2 <= service.log.count("exited before it was ready") <= 8
    assert "1 start failure; retrying in 0.25 s" in service.log
    assert "2 consecutive start failures; retrying in 0.5 s" in service.log
    assert "exit status 7" in service.log


def test_a_port_in_use_is_named_with_its_place(service):
    """The line names the setting, the file, the line, and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        service.configure(f"workers: 2\nlisten: 127.0.0.1:{port}\n")
        service.start("--config", str(service.config), ready=False)
        assert service.wait() == 71
    assert f"{service.config}:2:9: listen[0]: 127.0.0.1:{port} cannot be bound" in service.log
    assert "hint: stop what listens there" in service.log


LOGS = """
import logging, logging.config
DICTIONARY = {
    "version": 1,
    "handlers": {"own": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["own"], "level": "DEBUG"},
}
CONFIGURE

def app(environ, start_response):
    logging.getLogger("site").warning("the application speaks")
    raise RuntimeError("it broke")

async def main(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    app(None, None)
"""
CONFIGURING = {
    "logging.config.dictConfig(DICTIONARY)": "the application speaks",
    "logging.basicConfig(format='%(levelname)s=%(message)s')": "WARNING=the application speaks",
    "": r"\S+ preforkd\[\d+\]: warning: worker 1 \(generation 1\): the application speaks",
}


@pytest.mark.parametrize("code", CONFIGURING, ids=["dictConfig", "basicConfig", "none"])
@pytest.mark.parametrize("target", ["wsgi:logs:app", "asgi:logs:main"])
def test_an_application_that_configures_logging_takes_nothing_away(service, code, target):
    """What it configures is in force; preforkd's lines have who speaks, and nothing comes twice."""
    address = service.serve("logs", LOGS.replace("CONFIGURE", code), "workers: 1\n", target)
    assert b" 500 " in ask(address)
    assert service.stop() == 0
    lines = service.log.splitlines()
    (said,) = [line for line in lines if "the application speaks" in line]
    assert re.fullmatch(CONFIGURING[code], said)
    assert len([line for line in lines if line.endswith("RuntimeError: it broke")]) == 1
    if target.startswith("wsgi"):
        assert re.search(r"error: worker 1 \(generation 1\): .*(\n.*)*it broke", service.log)


PLAIN = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]

async def main(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"].endswith("shutdown"):
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})

def handle(connection, peer):
    connection.recv(1024)
    connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nok")
"""
STRICT = {"devmode": {"PYTHONDEVMODE": "1"}, "warnings": {"PYTHONWARNINGS": "error"}}


@pytest.mark.parametrize("target", ["wsgi:plain:app", "asgi:plain:main", "stream:plain:handle"])
@pytest.mark.parametrize("strictly", STRICT)
def test_nothing_of_ours_is_warned_of(service, target, strictly):
    """A start, requests, a reload, one that fails, a refork and a stop leave nothing unclosed."""
    (service.folder / "plain.py").write_text(PLAIN)
    (service.folder / "bad.py").write_text("raise RuntimeError('it broke')")
    port = free_port()
    text = f"app: {{target: '{target}', directory: {service.folder}}}\nlisten: 127.0.0.1:{port}\n"
    service.configure(text + "workers: 2\n")
    service.start("--config", str(service.config), environ=STRICT[strictly])
    assert b" 200 " in ask(("127.0.0.1", port))
    assert service.control("reload").returncode == 0
    service.configure(text.replace("plain:", "bad:") + "workers: 2\n")
    assert service.control("reload").returncode == 69
    refork = service.control("refork")
    assert refork.returncode == (78 if target.startswith("asgi") else 0), refork.stderr
    assert b" 200 " in ask(("127.0.0.1", port))
    assert service.stop() == 0
    assert "Warning" not in service.log
    assert service.log.count("Traceback") == 1  # that of the reload that fails


def test_unix_sockets_are_made_and_removed(service, tmp_path):
    """A Unix socket gets its mode, serves, and is removed at the end; a stale file is replaced."""
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    service.configure(f"listen: {{address: 'unix:{path}', mode: 0600}}\n")
    service.start("--config", str(service.config))
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_all(str(path), socket.AF_UNIX).startswith(b"Hello")
    assert service.stop() == 0
    assert not path.exists()


def test_the_watchdog_is_fed(service):
    """WATCHDOG=1 comes at least twice in the interval that the manager grants."""
    service.start("--listen", f"127.0.0.1:{free_port()}", environ={"WATCHDOG_USEC": "400000"})
    for _ in range(3):
        service.manager.wait_for("WATCHDOG", "1", timeout=0.4)


def test_a_stopped_worker_does_not_keep_others_from_serving(echo):
    """A worker that hangs (SIGSTOP) costs one seat; the others answer."""
    os.kill(echo.workers()[0], signal.SIGSTOP)
    with Load(echo.address, keep_alive=0, fresh=2, rate=100) as load:
        load.wait_for(1)
    # At most the one connection that was given to the stopped worker waits for it.
    assert load.result.ok >= 1


def test_titles_tell_role_generation_slot_and_state(echo):
    """ps shows who is who."""
    titles = [
        subprocess.run(
            ["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=True
        ).stdout.strip()
        for pid in [echo.pid, *children_of(echo.pid)]
    ]
    assert "preforkd: master, serving, generation 1" in titles
    assert "preforkd: zygote, generation 1" in titles
    assert "preforkd: worker 1, generation 1, serving" in titles


SOCKET_ACTIVATE = shutil.which("systemd-socket-activate")


@pytest.mark.skipif(not SOCKET_ACTIVATE, reason="systemd-socket-activate is not installed")
def test_sockets_from_systemd_are_served_by_name(service, tmp_path):
    """Two sockets that systemd-socket-activate passes, TCP and Unix, are both served."""
    port, path = free_port(), tmp_path / "x.sock"
    service.configure("listen:\n- name: http\n- name: admin\n")
    service.start(
        "--config",
        str(service.config),
        command=(
            str(SOCKET_ACTIVATE),
            *("-l", f"127.0.0.1:{port}", "-l", str(path), "--fdname=http:admin"),
            f"--setenv=NOTIFY_SOCKET={service.manager.path}",
            f"--setenv=RUNTIME_DIRECTORY={tmp_path}",
            f"--setenv=PYTHONPATH={HERE.parent.parent}",
        ),
        ready=False,
    )
    deadline = time.monotonic() + 20
    while "Listening on" not in service.log or not path.exists():
        assert time.monotonic() < deadline, service.log
        service.manager.listen(0.05)
    assert read_all(("127.0.0.1", port)).startswith(b"Hello")
    assert read_all(str(path), socket.AF_UNIX).startswith(b"Hello")
    rows = {row["name"]: row for row in service.status()["listeners"]}
    assert {name: row["origin"] for name, row in rows.items()} == {
        "http": "systemd",
        "admin": "systemd",
    }
    assert service.stop() == 0
    assert path.exists()  # systemd's own, not ours to unlink


@pytest.mark.skipif(not SOCKET_ACTIVATE, reason="systemd-socket-activate is not installed")
def test_a_name_that_systemd_did_not_pass_is_an_error(service, tmp_path):
    """The configuration's name, what was passed, and the nearest name are all in the line."""
    port = free_port()
    service.configure("listen: {name: htpp}\n")
    service.start(
        "--config",
        str(service.config),
        command=(
            str(SOCKET_ACTIVATE),
            *("-l", f"127.0.0.1:{port}", "--fdname=http"),
            f"--setenv=PYTHONPATH={HERE.parent.parent}",
        ),
        ready=False,
    )
    deadline = time.monotonic() + 20
    while "Listening on" not in service.log:
        assert time.monotonic() < deadline
        service.manager.listen(0.05)
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)):
        assert service.wait() == 78
    # systemd would start it again at once, and again: a start that fails takes its time.
    assert time.monotonic() - begun >= 2.0
    assert (
        "systemd passed no socket named 'htpp'; it passed: http (did you mean http?)" in service.log
    )


PASS = """\
import os, socket, sys
sock = eval(sys.argv[1])
keep = os.dup(sock.fileno())
os.dup2(keep, 3)
os.environ.setdefault("LISTEN_FDS", "1")
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.environ.setdefault("LISTEN_FDNAMES", "http")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes preforkd with a socket that is passed as systemd passes it."""


def passing(sock):
    """Return the command that passes the socket that this expression makes."""
    return (sys.executable, "-c", PASS, sock)


@pytest.mark.parametrize(
    ("sock", "reason"),
    [
        ("socket.socket(type=socket.SOCK_DGRAM)", "ListenStream= instead of ListenDatagram="),
        (
            "socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)",
            "ListenStream= instead of ListenSequentialPacket=",
        ),
        ("socket.socketpair()[0]", "write Accept=no in the socket unit"),
    ],
)
def test_only_sockets_that_cannot_be_served_are_refused(service, sock, reason):
    """Nothing is bound in their place: the reason in the log and in STATUS, even without a file."""
    port = free_port()
    arguments = ("--config", "/nowhere/0-127.0.0.1.yaml", "--listen", f"127.0.0.1:{port}")
    service.start(*arguments, command=passing(sock), ready=False)
    assert service.wait() == 78
    assert reason in service.log
    assert "listening on" not in service.log
    assert "passed no socket that can be served" in service.manager.wait_for("STATUS")["STATUS"]


def test_sockets_for_another_process_are_told(service):
    """Their descriptors stay where they are, and the port that is taken is explained by them."""
    port = free_port()
    sock = f"socket.create_server(('127.0.0.1', {port}))"
    service.start(
        *("--listen", f"127.0.0.1:{port}"),
        command=passing(sock),
        environ={"LISTEN_PID": "1"},
        ready=False,
    )
    assert service.wait() == 71
    assert "Address already in use" in service.log
    assert f"hint: LISTEN_FDS=1 is for process 1 (LISTEN_PID); this is process {service.pid}" in (
        service.log
    )


@pytest.mark.parametrize("variable", ["LISTEN_FDS", "LISTEN_FDNAMES"])
def test_variables_of_passed_sockets_that_are_wrong_are_an_error(service, variable):
    """The variable is named, and there is no traceback."""
    service.start(
        command=passing("socket.create_server(('127.0.0.1', 0))"),
        environ={variable: "one:two"},
        ready=False,
    )
    assert service.wait() == 71
    assert f"{variable}=" in service.log
    assert "one:two" in service.log
    assert "Traceback" not in service.log


def test_an_address_that_is_not_served_is_told_for_as_long(service):
    """In STATUS and by preforkctl status, at the start and after a reload that names another one."""
    port, other = free_port(), free_port()
    path = service.configure(f"app: {ECHO}\nlisten: 127.0.0.1:{other}\n")
    passed = f"socket.create_server(('127.0.0.1', {port}))"
    service.start("--config", str(path), command=passing(passed), ready=False)
    said = service.manager.wait_for("READY", "1")["STATUS"]
    note = (
        f"2:9: listen[0]: 127.0.0.1:{other} is not served: systemd passed 127.0.0.1:{port} instead"
    )
    assert note in said
    assert note in service.control("status").stdout
    assert note in service.log
    service.configure(f"app: {ECHO}\nlisten: 127.0.0.1:{port}\n")
    assert service.control("reload").returncode == 0
    assert "is not served" not in service.control("status").stdout
    assert "is not served" not in service.manager.wait_for("READY", "1")["STATUS"]
    # Nothing that is served depends on it any more.
    service.configure(f"app: {ECHO}\n")
    answer = service.control("reload")
    assert "listen: no longer set" in answer.stderr
    assert answer.returncode == 78


def test_an_entry_speaks_tls_on_the_passed_socket_of_its_address(service):
    """Though systemd's name for it is another one."""
    port = free_port()
    certificate = service.folder / "chain.pem"
    certificate.write_text(KEY + CERTIFICATE)
    path = service.configure(
        f"app: {ECHO}\nlisten: {{address: '127.0.0.1:{port}', tls: true}}\n"
        f"tls: {{certificate: {certificate}}}\n"
    )
    passed = f"socket.create_server(('127.0.0.1', {port}))"
    service.start("--config", str(path), command=passing(passed))
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain) as secure,
    ):
        secure.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert secure.recv(99).startswith(b"HTTP/1.1 200 ")


def test_the_demo_is_never_served_in_silence(service):
    """Where app.target is missing: a warning that names the file."""
    path = service.configure(f"listen: 127.0.0.1:{free_port()}\n")
    service.start("--config", str(path))
    assert (
        f"warning: app.target is not set in {path}; serving the built-in demo application"
        in service.log
    )


WITHOUT_PROC = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
ANY_KIND = """
import os

def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/orphan" and os.fork() == 0:
        os._exit(0 if os.fork() else 3)
    start_response("200 OK", [])
    return [b"here"]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})

def stream(connection, peer):
    connection.recv(4096)
    connection.sendall(b"here")
"""


@pytest.mark.parametrize("kind", ["wsgi", "asgi", "stream"])
def test_without_proc_all_is_served(service, kind):
    """Loaded, reloaded, a killed worker replaced, an orphan reaped, stopped; only counts are missing."""
    works = subprocess.run([*WITHOUT_PROC, "true"], capture_output=True, check=False)
    if works.returncode != 0:
        pytest.skip("nothing can be mounted here")
    (service.folder / "anykind.py").write_text(ANY_KIND)
    port = free_port()
    app = f"{{target: '{kind}:anykind:{kind}', directory: {service.folder}}}"
    path = service.configure(f"app: {app}\nlisten: 127.0.0.1:{port}\nworkers: 2\n")
    service.start("--config", str(path), command=WITHOUT_PROC)
    address = ("127.0.0.1", port)
    assert b"here" in ask(address, "/orphan")
    os.kill(service.workers()[0], signal.SIGKILL)
    service.until(lambda status: status["ready"] == 2 and "killed by SIGKILL" in service.log)
    answer = service.control("reload", "--fresh")
    assert answer.returncode == 0, answer.stderr
    assert b"here" in ask(address)
    assert "No such file or directory" in service.control("memory").stdout
    assert service.stop() == 0
    assert "/proc is not mounted: limits.cpu, " in service.log
    assert "Traceback" not in service.log


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_an_idle_service_does_not_wake_up(service):
    """After a connection all is quiet within 2.5 s: no process makes another system call."""
    port = free_port()
    service.start("--listen", f"127.0.0.1:{port}")
    read_all(("127.0.0.1", port))
    pids = [service.pid, *children_of(service.pid)]
    begun = time.time()
    traced = subprocess.run(
        ["timeout", "6", "strace", "-f", "-ttt"]
        + [word for pid in pids for word in ("-p", str(pid))],
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in traced.stderr:
        pytest.skip("this kernel does not let us trace")
    assert traced.stderr.count("attached") == len(pids)
    # A call that has returned; what a process is still waiting in is not one.
    done = re.compile(r"(\d+\.\d+) .*\) += ")
    calls = [
        (float(match[1]), match[0])
        for match in map(done.search, traced.stderr.split("\n"))
        if match
    ]
    late = [call for when, call in calls if when > begun + 2.5]
    assert not late, late


def test_check_and_config_say_what_is(tmp_path):
    """`check` names every problem with its place; `config` names each value's origin."""
    path = tmp_path / "p.yaml"
    path.write_text("workers: many\nlog: {level: loud}\n")
    command = [sys.executable, "-m", "preforkd"]
    run = {"capture_output": True, "text": True, "check": False}
    checked = subprocess.run([*command, "check", str(path)], **run)
    assert checked.returncode == 78
    assert f"{path}:1:10: workers:" in checked.stderr
    assert f"{path}:2:14: log.level:" in checked.stderr
    path.write_text("workers: 3\n")
    assert subprocess.run([*command, "check", str(path)], **run).returncode == 0
    shown = subprocess.run([*command, "config", "--config", str(path)], **run).stdout
    assert re.search(rf"^workers.count +3 +{path}:1:10$", shown, re.MULTILINE)
    assert re.search(r"^timeouts.drain +30s +default$", shown, re.MULTILINE)


def test_check_imports_the_application_on_request(tmp_path):
    """`check --import` loads the application as the service would, and exits by blame."""
    path = tmp_path / "p.yaml"
    command = [sys.executable, "-m", "preforkd", "check", "--import", str(path)]
    path.write_text(f"app: {{target: 'wsgi:echo:application', directory: {HERE}}}\n")
    good = subprocess.run(command, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stderr
    assert "the application loads" in good.stdout
    path.write_text(
        f"app:\n  target: wsgi:echo:application\n  directory: {HERE}\n"
        "  environment: {BREAK: import}\n"
    )
    bad = subprocess.run(command, capture_output=True, text=True, check=False)
    assert bad.returncode == 69
    assert "does not want to be imported" in bad.stderr


def test_a_worker_that_is_asked_to_leave_is_replaced_at_once(echo):
    """SIGTERM to a busy worker: another takes over while it finishes its request."""
    answers = []
    slow = threading.Thread(target=lambda: answers.append(ask(echo.address, "/slow?for=2")))
    slow.start()
    status = echo.until(lambda status: status["busy"] == 1)
    (busy,) = (row["pid"] for row in status["workers"] if row["busy_seconds"] is not None)
    idle = next(pid for pid in echo.workers() if pid != busy)
    os.kill(idle, signal.SIGTERM)
    os.kill(busy, signal.SIGTERM)
    status = echo.until(lambda status: idle not in {row["pid"] for row in status["workers"]})
    slow.join()
    assert answers[0].startswith(b"HTTP/1.1 200 OK")
    status = echo.until(
        lambda status: (
            status["ready"] == 4 and not {busy, idle} & {row["pid"] for row in status["workers"]}
        )
    )
    assert "is draining without an order of the master" in echo.log


def test_memory_pressure_reaches_every_worker(service, tmp_path):
    """The master is told once, and each worker gives back what it does not need."""
    fifo = tmp_path / "pressure"
    os.mkfifo(fifo)
    service.start(
        *("--listen", f"127.0.0.1:{free_port()}", "--log-level", "debug"),
        environ={"MEMORY_PRESSURE_WATCH": str(fifo)},
    )
    descriptor = os.open(fifo, os.O_WRONLY)
    os.write(descriptor, b"x")
    service.until(lambda _: service.log.count("ran the garbage collector") == 4)
    assert service.log.count("memory pressure: releasing") == 1
    os.close(descriptor)
