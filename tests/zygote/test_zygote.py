"""The zygote, driven by the test: the messages of a master, and its answers."""

import logging
import os
import select
import socket
import sys
import threading
from types import SimpleNamespace

import msgspec
import pytest

from preforkd.config.settings import AppSettings, Settings
from preforkd.ipc import messages, slots
from preforkd.ipc.channel import Channel, pair
from preforkd.linux import fork, inventory
from preforkd.supervisor import children
from preforkd.zygote import zygote

APP = """\
import os
{more}

def app(environ, start_response):
    start_response("200 OK", [])
    return []
"""


def heard(channel):
    """Return the next message of a child, with its pid."""
    assert select.select([channel], [], [], 30)[0], "it says nothing"
    return channel.receive(wait=False)


class Process:
    """A zygote that was executed as the master does it."""

    def __init__(self, folder, more, **app):
        (folder / "loaded.py").write_text(APP.format(more=more))
        app = AppSettings(target="wsgi:loaded:app", directory=str(folder), **app)
        self.settings = msgspec.msgpack.encode(Settings(app=app))
        environment = {**os.environ, "JOURNAL_STREAM": ""}
        self.pid, self.channel = children.execute_zygote(sys.executable, environment)
        self.status = None

    def load(self, *, load_only=False):
        """Have it load the application; return what it answers."""
        self.channel.send(messages.Load(1, self.settings, (), load_only=load_only))
        return heard(self.channel).message

    def fork(self):
        """Have it fork worker 5 in slot 2; return the worker's channel, and its pid."""
        ours, theirs = pair()
        memory = slots.create("test")
        self.channel.send(messages.Fork(5, 2), (theirs.fileno(), memory))
        theirs.close()
        os.close(memory)
        forked = heard(self.channel).message
        assert forked.worker == 5
        return Channel(ours, msgspec.msgpack.Decoder(messages.FromWorker)), forked.pid

    def end(self):
        """Return how it ended."""
        if self.status is None:
            self.channel.close()  # whatever it was at, it ends then
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status


@pytest.fixture
def execute(tmp_path):
    made = []

    def start(more="", **app):
        made.append(Process(tmp_path, more, **app))
        return made[-1]

    yield start
    for process in made:
        process.end()


@pytest.mark.process
def test_it_loads_once_and_exits_when_dismissed(execute):
    """Or when its master has gone, before and after it has loaded."""
    loaded = execute()
    assert loaded.load().seconds > 0
    loaded.channel.send(messages.Dismiss())
    pidfd = os.pidfd_open(loaded.pid)
    assert select.select([pidfd], [], [], 30)[0], "it does not leave"
    os.close(pidfd)
    assert loaded.end() == 0
    orphan = execute()
    assert isinstance(orphan.load(), messages.Loaded)
    assert orphan.end() == 0
    assert execute().end() == 0


@pytest.mark.process
@pytest.mark.parametrize(
    ("more", "blame", "words"),
    [
        ("raise RuntimeError('not today')", "application", "importing loaded failed"),
        ("del os; app_is_gone", "application", "NameError"),
        ("os.closerange(3, 100)", "", ""),
    ],
)
def test_a_failed_load_is_reported_and_ends_it(execute, more, blame, words, capfd):
    """With the blame and the traceback; without its channel it logs the failure and exits."""
    process = execute(more)
    if not blame:
        process.channel.send(messages.Load(1, process.settings, ()))
        assert process.end() == 1
        assert "has closed descriptors that are not its own" in capfd.readouterr().err
        return
    failure = process.load().failure
    assert failure.blame == blame
    assert words in failure.reason + failure.detail
    assert process.end() == 0


@pytest.mark.process
def test_it_forks_workers_on_request(execute):
    """Forked has the pid and is sent before the worker starts, which sends Ready over its own channel."""
    process = execute()
    process.load()
    worker, pid = process.fork()
    received = heard(worker)
    assert received.message == messages.Ready()
    assert received.pid == pid
    worker.close()  # its master has gone: it leaves


@pytest.mark.process
def test_without_preload_the_worker_loads(execute, tmp_path):
    """The zygote imports nothing of the application; the worker that it forks reports a failed import."""
    process = execute("raise RuntimeError(os.environ['PREFORKD_WORKER'])", preload=False)
    assert process.load().directory == str(tmp_path)
    worker, pid = process.fork()
    received = heard(worker)
    assert received.pid == pid
    assert "importing loaded failed: RuntimeError: 2" in received.message.failure.reason
    worker.close()


@pytest.mark.process
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("raise RuntimeError('not today')", "importing loaded failed"),
        ("os._exit(3)", "loading the application ended its worker"),
    ],
)
def test_without_preload_a_check_loads_in_a_worker(execute, more, words):
    """Its failure is the zygote's, and an application that loads is no failure."""
    failed = execute(more, preload=False).load(load_only=True)
    assert words in failed.failure.reason
    assert isinstance(execute(preload=False).load(load_only=True), messages.Loaded)


class Told:
    """A channel that records messages."""

    def __init__(self):
        self.said = []

    def send(self, message, *, wait):
        self.said.append(message)


def test_a_failed_fork_is_reported_and_the_zygote_continues(monkeypatch):
    """The kernel's reason travels."""

    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(fork, "double_fork", refuse)
    told = Told()
    assert zygote._fork(told, SimpleNamespace(), messages.Fork(5, 2), ()) is None
    assert told.said == [messages.ForkFailed(5, "fork: Resource temporarily unavailable")]


def test_what_a_fork_does_not_take_along_is_named(caplog):
    """Threads by their names, connections by their other ends; what was open before is not the application's."""
    caplog.set_level(logging.WARNING)
    go_on = threading.Event()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
    ):
        before = inventory.descriptors()
        thread = threading.Thread(target=go_on.wait, name="the-poller")
        thread.start()
        connection = socket.create_connection(server.getsockname())
        peer = "{}:{}".format(*server.getsockname())
        try:
            zygote._warn_of_fork_hazards(before)
        finally:
            go_on.set()
            thread.join()
            connection.close()
    assert "the-poller" in caplog.text
    assert caplog.text.count("has left a connection open") == 1
    assert peer in caplog.text
