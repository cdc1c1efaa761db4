"""Who is late is replaced, and where it hung is in the log."""

import os
import re
import signal
import socket

import pytest

from tests.process.faults import get, whole_again
from tests.process.service import ask

APP = """\
import os, signal, threading, time

def hang_here():
    threading.Event().wait()

def app(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        hang_here()
    if environ["PATH_INFO"] == "/consume":
        consumer = threading.Thread(target=hang_here, name="kafka-consumer")
        consumer.start()
    start_response("200 OK", [])
    return [b"hi"]
"""
STARTED = """
def worker_started():
    hang_here()
"""
ASGI = """\
import asyncio

async def wait_for_nobody():
    await asyncio.Event().wait()

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == HANGS:
                await wait_for_nobody()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await wait_for_nobody()
"""


def begun(service, address, path, busy=1):
    """Begin a request and return its connection when the application has it."""
    sock = socket.create_connection(address, 30)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    service.until(lambda status: status["busy"] == busy)
    return sock


def stacks_in(log, who):
    """Return what was logged of one that was late: the text behind the name, with its stacks."""
    found = re.search(
        rf"{who} \([^)]*\) was killed after its timeout([^\n]*stacks:\n(?:[\t ].*\n?|.*most recent.*\n?)*)",
        log,
    )
    assert found, log
    return found[1]


@pytest.mark.parametrize("hangs", ["stopped", "silent"])
def test_a_zygote_that_does_not_fork_is_replaced(service, hangs):
    """Stopped by a signal, or hung in a handler at the fork: the workers come from another one."""
    code = APP + (
        "def before():\n"
        "    if os.path.exists('hang'):\n"
        "        os.unlink('hang')\n"
        "        hang_here()\n"
        "os.register_at_fork(before=before)\n"
    )
    address = service.serve(
        "late", code, "workers: 2\ntimeouts: {boot: 2s, start: 30s}", "wsgi:late:app"
    )
    zygote, before = service.zygote(), set(service.workers())
    if hangs == "stopped":
        os.kill(zygote, signal.SIGSTOP)
    else:
        (service.folder / "hang").touch()
    for worker in before:
        os.kill(worker, signal.SIGKILL)
    whole_again(service, 2, before)
    assert service.zygote() != zygote
    assert get(address, "/") == (200, b"hi")
    assert f"zygote (pid {zygote}, generation 1) is killed: it did not fork worker" in service.log
    if hangs == "silent":
        assert "in hang_here" in stacks_in(service.log, "zygote")


def test_a_zygote_that_is_stopped_is_replaced_before_it_is_needed(service):
    """Nobody waits for the next fork; STATUS says so meanwhile."""
    service.serve("late", APP, "workers: 1", "wsgi:late:app")
    zygote, before = service.zygote(), service.workers()
    os.kill(zygote, signal.SIGSTOP)
    service.until(lambda status: "the zygote was stopped by a signal at" in status["status"])
    service.until(lambda _: service.zygote() not in {zygote, None}, 60)
    assert service.workers() == before
    assert "is killed: it was stopped by a signal for 10 s" in service.log


def start_that_fails(service, code, target, more=""):
    """Start a service of this code, which has nine seconds; return its log at the end."""
    (service.folder / "late.py").write_text(code)
    service.configure(
        f"app: {{target: '{target}', directory: {service.folder}}}\n{more}workers: 1\n"
        f"listen: 'unix:{service.folder}/sock'\ntimeouts: {{boot: 5s, start: 9s}}\n"
    )
    service.start("--config", str(service.config), ready=False)
    assert service.wait() == 69, service.log
    return service.log


def test_where_a_start_hangs_is_logged(service):
    """While it loads the application, and in a worker's hook."""
    log = start_that_fails(service, APP + "hang_here()\n", "wsgi:late:app")
    assert "in hang_here" in stacks_in(log, "zygote")


def test_where_a_worker_hangs_at_its_start_is_logged(service):
    """In a hook, before it is ready."""
    log = start_that_fails(service, APP + STARTED, "wsgi:late:app", "hooks: late\n")
    assert "in worker_started" in stacks_in(log, "worker 1")


def test_where_a_lifespan_hangs_is_logged(service):
    """The stacks of an ASGI worker's threads say nothing; the chain of its task does."""
    log = start_that_fails(service, "HANGS = 'lifespan.startup'\n" + ASGI, "asgi:late:app")
    text = log[log.index("was killed after its timeout") :]
    assert "Task " in text
    assert "in wait_for_nobody" in text


def test_what_holds_up_a_drain_is_logged_with_its_request(service):
    """Which request, and where it is."""
    address = service.serve("late", APP, "workers: 1\ntimeouts: {drain: 2s}", "wsgi:late:app")
    with begun(service, address, "/hang"):
        assert service.control("reload", "--fresh").returncode == 0
        whole_again(service, 1, set())
    text = service.log[service.log.index("was killed after its timeout") :]
    assert text.startswith("was killed after its timeout, busy with GET /hang HTTP/1.1")
    assert "in hang_here" in text


def test_an_asgi_request_that_holds_up_a_drain_is_logged_with_its_task(service):
    """It is cancelled before the worker would have to be killed: which, and where it waited."""
    code = "HANGS = ''\n" + ASGI
    address = service.serve("late", code, "workers: 1\ntimeouts: {drain: 2s}", "asgi:late:app")
    with begun(service, address, "/hang"):
        assert service.control("reload", "--fresh").returncode == 0
        whole_again(service, 1, set())
    text = service.log[service.log.index("cancelled; GET '/hang'") :]
    assert "in wait_for_nobody" in text


def test_where_a_lifespan_holds_up_a_drain_is_logged(service):
    """The task of its shutdown, with where it waits."""
    code = "HANGS = 'lifespan.shutdown'\n" + ASGI
    service.serve("late", code, "workers: 1\ntimeouts: {drain: 2s}", "asgi:late:app")
    assert service.control("reload", "--fresh").returncode == 0
    whole_again(service, 1, set())
    text = service.log[service.log.index("was killed after its timeout") :]
    assert "Task " in text
    assert "in wait_for_nobody" in text


def test_threads_that_hold_up_an_exit_are_named(service):
    """A thread that is no daemon is waited for, until the drain's time is over."""
    address = service.serve("late", APP, "workers: 1\ntimeouts: {drain: 4s}", "wsgi:late:app")
    assert b"hi" in ask(address, "/consume")
    assert service.control("reload", "--fresh").returncode == 0
    whole_again(service, 1, set())
    assert "the exit waits for 1 non-daemon thread(s): kafka-consumer" in service.log
    assert (
        "kafka-consumer (most recent call first)"
        in service.log[service.log.index("was killed after its timeout") :]
    )


def test_a_reload_to_fewer_workers_starts_no_more_than_will_stay(service):
    """From four to two: generation 2 has never had more, and STATUS never says that 4 of 2 are ready."""
    service.serve("late", APP, "workers: 4", "wsgi:late:app")
    service.manager.forget()
    service.configure(service.config.read_text().replace("workers: 4", "workers: 2"))
    assert service.control("reload", "--fresh").returncode == 0
    whole_again(service, 2, set())
    assert service.log.count("generation 2) is ready") == 2
    said = [message["STATUS"] for message in service.manager.messages if "STATUS" in message]
    assert not [line for line in said if re.search(r"[34] of 2 workers ready", line)]


BIG = "app: {{target: 'wsgi:late:app', directory: {folder}, environment: {{{variables}}}}}\n"


def test_an_environment_that_is_larger_than_a_message_is_passed(service):
    """Each variable is within what the system allows, and so is their sum."""
    code = APP.replace('[b"hi"]', '[str(sum(len(os.environ[n]) for n in "ABCD")).encode()]')
    (service.folder / "late.py").write_text(code)
    variables = ", ".join(f"{name}: {'x' * 100_000}" for name in "ABCD")
    sock = service.folder / "sock"
    service.configure(
        BIG.format(folder=service.folder, variables=variables) + f"listen: 'unix:{sock}'\n"
    )
    service.start("--config", str(service.config))
    assert ask(str(sock), "/", socket.AF_UNIX).endswith(b"400000")


def test_an_environment_with_all_letters_in_an_ascii_locale(service):
    """It is passed as UTF-8; so is the name of the application's directory."""
    folder = service.folder / "caf\xe9"
    folder.mkdir()
    code = APP.replace('[b"hi"]', '[os.environb[b"WORD"]]')
    (folder / "late.py").write_text(code)
    sock = service.folder / "sock"
    service.config.write_bytes(
        (
            BIG.format(folder=folder, variables="WORD: gr\xfc\xdfe") + f"listen: 'unix:{sock}'\n"
        ).encode()
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    service.start("--config", str(service.config), environ=ascii_only)
    assert ask(str(sock), "/", socket.AF_UNIX).endswith("gr\xfc\xdfe".encode())
    assert service.control("reload", "--fresh").returncode == 0
