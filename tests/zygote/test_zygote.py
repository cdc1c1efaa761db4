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
from preforkd.errors import ApplicationError
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

    def __init__(self, folder, more):
        (folder / "loaded.py").write_text(APP.format(more=more))
        app = AppSettings(target="wsgi:loaded:app", directory=str(folder))
        self.settings = msgspec.msgpack.encode(Settings(app=app))
        environment = {**os.environ, "JOURNAL_STREAM": ""}
        self.pid, self.channel = children.execute_zygote(sys.executable, environment)
        self.status = None

    def load(self):
        """Have it load the application; return what it answers."""
        self.channel.send(messages.Load(1, self.settings, ()))
        return heard(self.channel).message

    def end(self):
        """Return how it ended."""
        if self.status is None:
            self.channel.close()  # whatever it was at, it ends then
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status


@pytest.fixture
def execute(tmp_path):
    made = []

    def start(more=""):
        made.append(Process(tmp_path, more))
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
    ours, theirs = pair()
    memory = slots.create("test")
    process.channel.send(messages.Fork(5, 2), (theirs.fileno(), memory))
    theirs.close()
    forked = heard(process.channel).message
    assert forked.worker == 5
    worker = Channel(ours, msgspec.msgpack.Decoder(messages.FromWorker))
    received = heard(worker)
    assert received.message == messages.Ready()
    assert received.pid == forked.pid
    worker.close()  # its master has gone: it leaves
    os.close(memory)


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


def test_descriptors_of_our_own_are_demanded_back():
    """Closed, or with something else at their number: the application is to blame."""
    reader, writer = os.pipe()
    ours = zygote._identities([reader, writer])
    zygote._check_descriptors(ours)
    os.dup2(0, writer)
    with pytest.raises(ApplicationError, match="has closed descriptors that are not its own"):
        zygote._check_descriptors(ours)
    os.close(writer)
    with pytest.raises(ApplicationError):
        zygote._check_descriptors(ours)
    os.close(reader)
