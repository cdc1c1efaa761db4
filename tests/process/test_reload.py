"""Reloads under load: nothing that was accepted is lost, whatever the reload brings."""

import os
import random
import signal

import pytest

from tests.process.load import Load
from tests.process.service import HERE, ask, free_port


def configuration(port, *, target="wsgi:echo:application", environment="", more=""):
    return (
        f"app:\n  target: {target}\n  directory: {HERE}\n{environment}"
        f"listen: 127.0.0.1:{port}\n{more}"
    )


def breaking(how):
    return f"  environment:\n    BREAK: {how}\n"


@pytest.fixture
def serving(service):
    port = free_port()
    service.port = port
    service.configure(configuration(port))
    service.start("--config", str(service.config))
    return service


def test_reloads_and_the_zygotes_death_lose_nothing(serving):
    """20 reloads and a SIGKILL of the zygote under load: no answer is refused, reset or cut."""
    with Load(("127.0.0.1", serving.port)) as load:
        for _ in range(20):
            answer = serving.control("reload", "--fresh")
            assert answer.returncode == 0, answer.stderr
            load.wait_for(20)
        os.kill(serving.zygote(), signal.SIGKILL)
        serving.until(
            lambda status: (
                status["generations"][-1]["zygote_state"] == "ready"
                and "killed by SIGKILL" in serving.log
            )
        )
        load.wait_for(100)
    assert load.result.lost == 0, load.result.bad
    assert load.result.ok > 500


def test_a_killed_worker_loses_what_it_served(serving):
    """20 SIGKILLs of random workers: each costs the requests in that worker at most."""
    with Load(("127.0.0.1", serving.port), keep_alive=4, fresh=4) as load:
        for _ in range(20):
            os.kill(random.choice(serving.workers()), signal.SIGKILL)
            load.wait_for(50)
        serving.until(lambda status: status["ready"] == 4)
    # A request in the killed worker, and one on the way to it on each of the kept connections that
    # it held, if the client had just sent one.
    assert load.result.lost <= 20, load.result.bad
    assert {category for _, category, _ in load.result.bad} <= {"reset", "empty", "cut"}


BROKEN = {
    "syntax": ("app: [", 78, "not YAML"),
    "unknown": ("aap: {}\n", 78, "did you mean app?"),
    "import": (breaking("import"), 69, "does not want to be imported"),
    "missing": ("wsgi:no_such_module:application", 78, "no module named 'no_such_module'"),
    "dies": (breaking("worker-dies"), 69, "exit status 7"),
    "hangs": (breaking("worker-hangs"), 69, "was not ready within"),
    "load-hangs": (breaking("load-hangs"), 69, "the application was still loading"),
    "no python": ("/no/such/python", 78, "/no/such/python cannot be executed"),
    "port": ("", 71, "cannot be bound"),
    "certificate": (
        "/no/such.pem",
        78,
        "/preforkd.yaml:5:20: tls.certificate: /no/such.pem: No such",
    ),
    "check": (
        "/die?id=1",
        69,
        "/preforkd.yaml:4:10: app.check: GET /die?id=1 was not answered: the worker closed the connection",
    ),
    "access log": ("/no/such/log", 71, "access_log.target: /no/such/log: No such file"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_reload_is_refused_and_nothing_is_lost(serving, kind, tmp_path):
    """Each kind of broken reload names its reason and its blame; the old generation serves on."""
    what, status, reason = BROKEN[kind]
    port, more = serving.port, "timeouts: {start: 2s, boot: 1s}\n"
    texts = {
        "syntax": what,
        "unknown": what,
        "missing": configuration(port, target=what),
        "certificate": configuration(port, more=f"tls: {{certificate: {what}}}\n").replace(
            f"127.0.0.1:{port}", f"{{address: '127.0.0.1:{port}', tls: true}}"
        ),
        "access log": configuration(port, more=f"access_log: {{target: {what}}}\n"),
        "check": configuration(port, environment=f"  check: {what}\n"),
        "no python": configuration(port, more=more).replace("app:\n", f"app:\n  python: {what}\n"),
    }
    if kind == "port":
        # Port 1 is nobody's; the address belongs to no interface of this machine.
        texts[kind] = configuration(port).replace("127.0.0.1", "192.0.2.1")
    before = serving.status()
    with Load(("127.0.0.1", port)) as load:
        serving.configure(texts.get(kind) or configuration(port, environment=what, more=more))
        serving.manager.forget()
        answer = serving.control("reload")
        assert answer.returncode == status, answer.stderr
        assert reason in answer.stderr
        assert "the last reload failed" in serving.manager.wait_for("READY", "1")["STATUS"]
        load.wait_for(50)
    assert load.result.lost == 0, load.result.bad
    after = serving.status()
    assert after["generation"] == before["generation"]
    assert {row["pid"] for row in after["workers"] if row["serving"]} == {
        row["pid"] for row in before["workers"]
    }
    assert reason.split("\n")[0] in serving.log
    # And the next reload, of what is whole again, succeeds.
    serving.configure(configuration(port))
    assert serving.control("reload", "--fresh").returncode == 0


def test_live_settings_need_no_new_workers(serving):
    """More workers, a drain timeout and a log level are changed without a new generation."""
    before = set(serving.workers())
    serving.configure(
        configuration(serving.port, more="workers: 6\nlog: {level: debug}\ntimeouts: {drain: 5s}\n")
    )
    answer = serving.control("reload")
    assert answer.returncode == 0, answer.stderr
    assert "workers" in answer.stdout
    status = serving.until(lambda status: status["ready"] == 6)
    assert status["generation"] == 1
    assert before < set(serving.workers())


def test_what_only_a_restart_changes_is_said(serving):
    """A changed control socket is named in the answer, and the old one goes on."""
    serving.configure(configuration(serving.port, more="control: {socket: /tmp/elsewhere}\n"))
    answer = serving.control("reload")
    assert "control.socket" in answer.stdout
    assert serving.control("status").returncode == 0


def test_hangups_during_a_reload_become_one_that_follows(serving):
    """Nine SIGHUPs while the file is read for the first one: exactly one more reload, with its own READY."""
    text = serving.config.read_bytes()
    serving.config.unlink()
    os.mkfifo(serving.config)
    serving.manager.forget()
    os.kill(serving.pid, signal.SIGHUP)
    serving.until(lambda status: status["state"] == "reloading")
    for _ in range(9):
        os.kill(serving.pid, signal.SIGHUP)
    serving.until(lambda status: "reload queued" in serving.log)
    with open(serving.config, "wb") as fifo:
        serving.config.unlink()
        serving.config.write_bytes(text)
        fifo.write(text)
    serving.until(lambda status: status["generation"] == 3 and len(status["generations"]) == 1)
    serving.until(lambda status: status["state"] == "serving")
    kinds = [
        name
        for message in serving.manager.messages
        for name in ("RELOADING", "READY")
        if name in message
    ]
    assert kinds == ["RELOADING", "READY"] * 2
    assert serving.status()["generation"] == 3


def test_a_reload_is_announced_where_nobody_is_answered(serving):
    """SIGHUP: RELOADING with its time, then READY. By the control socket, as ExecReload= asks: READY alone.

    systemd 257 would wait for our READY after ExecReload= has ended, also when we are killed meanwhile.
    """
    serving.manager.forget()
    os.kill(serving.pid, signal.SIGHUP)
    assert serving.manager.wait_for("RELOADING", "1")["MONOTONIC_USEC"].isdigit()
    serving.manager.wait_for("READY", "1")
    serving.manager.forget()
    assert serving.control("reload", "--fresh").returncode == 0
    serving.manager.wait_for("READY", "1")
    assert not any("RELOADING" in message for message in serving.manager.messages)


def test_the_workers_are_looked_after_while_the_file_is_read(serving):
    """A file that never ends (a FIFO): a killed worker is replaced meanwhile, and a stop is a stop."""
    serving.config.unlink()
    os.mkfifo(serving.config)
    os.kill(serving.pid, signal.SIGHUP)
    serving.until(lambda status: status["state"] == "reloading")
    killed = serving.workers()[0]
    os.kill(killed, signal.SIGKILL)
    serving.until(lambda status: status["ready"] == 4 and killed not in serving.workers())
    assert serving.status()["state"] == "reloading"
    assert serving.stop() == 0
    # Who reads it goes as well, when there is no more to come.
    os.close(os.open(serving.config, os.O_RDWR | os.O_NONBLOCK))


def test_a_reload_moves_to_a_new_address(serving):
    """A reload binds the new address before the old one is given up."""
    other = free_port()
    serving.configure(configuration(other))
    assert serving.control("reload").returncode == 0
    with Load(("127.0.0.1", other), keep_alive=1, fresh=1) as load:
        load.wait_for(20)
    assert load.result.lost == 0
    assert [row["address"] for row in serving.status()["listeners"]] == [f"127.0.0.1:{other}"]


LOST = {
    "empty": ("", "the file no longer contains any settings"),
    "cut off": ("app:\n  target: wsgi:ec", "is not KIND:MODULE:ATTRIBUTE"),
    "without an application": ("workers: 4\nlisten: :1\n", "app.target: no longer set"),
    "without an address": (None, "listen: no longer set"),
    "missing": ("missing", "cannot be read: No such file or directory"),
    "a directory": ("directory", "cannot be read: Is a directory"),
    "endless": ("/dev/zero", "the file is larger than 1 MiB"),
}


@pytest.mark.parametrize("how", ["reload", "SIGHUP"])
@pytest.mark.parametrize("kind", LOST)
def test_a_configuration_that_was_lost_changes_nothing(serving, kind, how):
    """However it was lost, and whoever asks: refused with the reason, in STATUS too; all serves on."""
    what, reason = LOST[kind]
    path, before = serving.config, serving.status()
    serving.manager.forget()
    if what is None:
        path.write_text(configuration(serving.port).partition("listen:")[0])
    elif what == kind:
        path.unlink()
    elif kind == "a directory":
        path.unlink()
        path.mkdir()
    elif kind == "endless":
        path.unlink()
        path.symlink_to(what)
    else:
        path.write_text(what)
    if how == "reload":
        answer = serving.control("reload")
        assert (answer.returncode, reason in answer.stderr) == (78, True), answer.stderr
    else:
        os.kill(serving.pid, signal.SIGHUP)
    said = serving.manager.wait_for("READY", "1")["STATUS"]
    assert "the last reload failed" in said
    assert reason in said
    after = serving.status()
    assert after["generation"] == before["generation"] == 1
    assert [row["address"] for row in after["listeners"]] == [f"127.0.0.1:{serving.port}"]
    assert ask(("127.0.0.1", serving.port)).startswith(b"HTTP/1.1 200 ")


def test_an_application_of_the_command_line_needs_no_file(service):
    """A reload without any file goes on working, by preforkctl and by SIGHUP."""
    port = free_port()
    arguments = ("wsgi:echo:application", "--directory", str(HERE), "--listen", f"127.0.0.1:{port}")
    service.start(*arguments)
    answer = service.control("reload", "--fresh")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("generation 2 is serving, loaded from ")
    service.manager.forget()
    os.kill(service.pid, signal.SIGHUP)
    assert "generation 3" in service.manager.wait_for("READY", "1")["STATUS"]
    assert ask(("127.0.0.1", port)).startswith(b"HTTP/1.1 200 ")
