"""The control socket's limits on a fake clock: each a moment before its bound, and exactly at it."""

import errno
import json
import logging
import os
import socket
from types import SimpleNamespace

import pytest

import preforkd
from preforkd.control import server
from preforkd.control.dispatch import MalformedError
from preforkd.control.permissions import Peer
from preforkd.control.server import CLIENTS, IDLE_TIMEOUT, READS, ControlServer, _Client
from preforkd.errors import SystemFailure
from preforkd.ipc import scm_rights
from preforkd.ipc.ratelimit import RateLimit
from preforkd.linux import bind
from tests.control.backend import Backend
from tests.supervisor.test_notify import Loop as Clock

RESERVED = 16


class Loop(Clock):
    """A clock, its timers, and what is watched; a test calls what is due."""

    def __init__(self):
        super().__init__()
        self.readers, self.writers = {}, {}

    def add_reader(self, descriptor, callback):
        self.readers[descriptor] = callback

    def remove_reader(self, descriptor):
        self.readers.pop(descriptor, None)

    def add_writer(self, descriptor, callback):
        self.writers[descriptor] = callback

    def remove_writer(self, descriptor):
        self.writers.pop(descriptor, None)


class Service:
    """Keeps each call, and how to answer it."""

    def __init__(self):
        self.calls, self.answers, self.raises = [], [], None

    def call(self, message, answer):
        self.calls.append(message)
        self.answers.append(answer)
        if self.raises is not None:
            raise self.raises


@pytest.fixture
def client():
    """A connected client, the far end of its socket, the clock, and the service."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    loop, service, ended = Loop(), Service(), []
    connection = _Client(loop, ours, service, None, ended.append, peek=False)
    loop.run(0)

    def readable():
        loop.readers[ours.fileno()]()

    with ours, theirs:
        yield SimpleNamespace(
            connection=connection,
            far=theirs,
            loop=loop,
            service=service,
            ended=ended,
            readable=readable,
            reads=lambda: ours.fileno() in loop.readers,
            writes=lambda: ours.fileno() in loop.writers,
        )


# --- one client -----------------------------------------------------------------------------------


def test_an_idle_client_is_closed_after_a_minute(client, caplog):
    """Silently: it has done nothing wrong. What it sends begins the minute anew."""
    assert IDLE_TIMEOUT == 60.0
    client.loop.run(50.0)
    client.far.sendall(b'{"par')
    client.readable()
    client.loop.run(59.9)
    assert client.ended == []
    client.loop.run(0.1)
    assert client.ended == [client.connection]
    assert not client.reads()
    assert not client.loop.timers
    assert caplog.records == []


def test_a_client_that_waits_for_its_answer_is_not_idle(client):
    """However long a reload takes; the minute begins with the answer."""
    client.far.sendall(b"reload\0")
    client.readable()
    client.loop.run(1000.0)
    assert client.ended == []
    (answer,) = client.service.answers
    answer(b"done\0")
    assert client.far.recv(99) == b"done\0"
    client.loop.run(59.9)
    assert client.ended == []
    client.loop.run(0.1)
    assert client.ended == [client.connection]


def test_a_client_that_does_not_read_its_answer_is_cut_off_with_a_message(client, caplog):
    """The rest of the answer goes out as it reads; a minute without an answer read is too long."""
    answer = b"x" * (8 << 20)
    client.far.sendall(b"status\0")
    client.readable()
    client.service.answers[0](answer)
    assert client.writes()
    assert not client.reads()
    client.loop.run(59.9)
    assert client.ended == []
    client.loop.run(0.1)
    assert client.ended == [client.connection]
    assert not client.writes()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_large_answer_goes_out_in_pieces(client):
    """Nothing is read while it does; afterwards the next request is."""
    client.far.sendall(b"status\0next\0")
    client.readable()
    client.service.answers[0](b"x" * (1 << 20))
    taken = 0
    while client.writes():
        taken += len(client.far.recv(1 << 20))
        client.loop.writers[client.connection.sock.fileno()]()
    client.far.setblocking(False)
    while taken < 1 << 20:
        taken += len(client.far.recv(1 << 20))
    assert taken == 1 << 20
    assert client.service.calls == [b"status"]
    client.loop.run(0)
    assert client.service.calls == [b"status", b"next"]


def test_requests_are_dealt_with_one_after_the_other(client):
    """The next one is taken up when the answer to the one before has gone out, in another turn."""
    client.far.sendall(b"one\0two\0thr")
    client.readable()
    assert client.service.calls == [b"one"]
    assert not client.reads()
    client.service.answers[0](b"")
    assert client.service.calls == [b"one"]
    client.loop.run(0)
    assert client.service.calls == [b"one", b"two"]
    client.service.answers[1](b"2\0")
    client.loop.run(0)
    assert client.reads()
    client.far.sendall(b"ee\0")
    client.readable()
    assert client.service.calls[2:] == [b"three"]
    assert client.far.recv(99) == b"2\0"


@pytest.mark.parametrize("size", [server.MESSAGE, server.MESSAGE + 1])
def test_the_bytes_of_a_request(client, size):
    """64 KiB may be one; a byte more may not, whether its end was read or not."""
    assert server.MESSAGE == 65536
    client.far.sendall(b"x" * size)
    client.readable()
    if size > server.MESSAGE:
        client.readable()
    assert bool(client.ended) == (size > server.MESSAGE)
    if not client.ended:
        client.far.sendall(b"\0")
        client.readable()
        assert client.service.calls == [b"x" * size]


def test_a_request_that_is_too_long_with_its_end_is_refused(client):
    """Its end came in the same read as the byte that is too many."""
    client.far.sendall(b"x" * server.MESSAGE)
    client.readable()
    client.far.sendall(b"x\0")
    client.readable()
    assert client.ended == [client.connection]
    assert client.service.calls == []


def test_an_empty_message_is_a_call_like_others(client):
    """That it is no call is the dispatcher's to decide."""
    client.far.sendall(b"\0")
    client.readable()
    assert client.service.calls == [b""]


@pytest.mark.parametrize(
    ("error", "level"),
    [(MalformedError("no JSON"), logging.WARNING), (ValueError("x"), logging.ERROR)],
)
def test_a_call_that_raises_ends_the_client(client, caplog, error, level):
    """A malformed call is the client's fault, with the reason; anything else is a defect of ours."""
    client.service.raises = error
    client.far.sendall(b"x\0")
    client.readable()
    assert client.ended == [client.connection]
    (record,) = caplog.records
    assert record.levelno == level
    assert "no JSON" in record.getMessage() or record.exc_info[1] is error


def test_a_client_that_has_closed_its_half_is_answered_before_the_end(client):
    """What is left of its requests is dealt with; a part of one is not."""
    client.far.sendall(b"one\0two\0par")
    client.far.shutdown(socket.SHUT_WR)
    client.readable()
    client.service.answers[0](b"1\0")
    client.loop.run(0)
    client.service.answers[1](b"2\0")
    client.loop.run(0)
    client.readable()  # the end
    assert client.service.calls == [b"one", b"two"]
    assert client.far.recv(99) == b"1\x002\0"
    assert client.ended == [client.connection]


def test_a_client_that_is_gone_is_noticed_where_its_answer_goes_out(client):
    """A late answer, and one of a client that was closed meanwhile, harm nothing."""
    client.far.sendall(b"one\0")
    client.readable()
    client.far.close()
    client.service.answers[0](b"1\0")
    assert client.ended == [client.connection]
    client.service.answers[0](b"1\0")
    client.connection.abort()
    assert client.ended == [client.connection]


def test_a_client_whose_connection_is_reset_ends(client, monkeypatch):
    """By an error of the read; that there is nothing to read yet is none."""
    client.readable()
    assert client.ended == []
    monkeypatch.setattr(client.connection, "sock", Reset(client.connection.sock.fileno()))
    client.loop.readers[client.connection.sock.fileno()]()
    assert client.ended == [client.connection]


class Reset:
    """A socket whose peer has reset the connection."""

    def __init__(self, descriptor):
        self.fileno = lambda: descriptor

    def recv(self, size):
        raise ConnectionResetError


def test_a_client_may_be_asked_to_finish(client):
    """At once when nothing is on its way to it, or else after the answer; no request follows."""
    client.far.sendall(b"one\0two\0")
    client.readable()
    client.service.answers[0](b"x" * (8 << 20))
    client.connection.finish()
    assert client.ended == []
    while client.writes():
        client.far.recv(1 << 20)
        client.loop.writers[client.connection.sock.fileno()]()
    client.loop.run(0)
    assert client.ended == [client.connection]
    assert client.service.calls == [b"one"]


def test_a_client_that_waits_for_a_reload_is_closed_by_the_end(client):
    """Its answer will never come."""
    client.far.sendall(b"reload\0")
    client.readable()
    client.connection.finish()
    assert client.ended == [client.connection]


def test_clients_that_may_only_read_share_a_rate():
    """A connection counts as a request does; what is too much waits for the next second."""
    assert READS == 200
    loop, service, rate = Loop(), Service(), RateLimit(3)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _Client(loop, ours, service, rate, lambda client: None, peek=False)
        loop.run(0)
        theirs.sendall(b"1\x002\x003\0")
        loop.readers[ours.fileno()]()
        service.answers[0](b"")
        loop.run(0)
        assert service.calls == [b"1", b"2"]
        service.answers[1](b"")
        loop.run(0.99)
        assert service.calls == [b"1", b"2"]
        loop.run(0.01)
        assert service.calls == [b"1", b"2", b"3"]


# --- all clients ----------------------------------------------------------------------------------


@pytest.fixture
def control(tmp_path, monkeypatch):
    """A control socket on a clock, and how to connect to it."""
    monkeypatch.setattr(scm_rights, "refuse", lambda sock: True)
    loop = Loop()
    control, path = ControlServer(loop, Backend(), ""), tmp_path / "io.preforkd.Manager"
    control.start(str(path), 0o660)
    listener = control._sock.fileno()
    sockets = []

    def connect(commands=True):
        monkeypatch.setattr(server, "may_command", lambda peer, group: commands)
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(str(path))
        sockets.append(sock)
        loop.readers[listener]()
        loop.run(0)
        return sock

    closed = []
    yield SimpleNamespace(
        server=control,
        loop=loop,
        connect=connect,
        path=path,
        listens=lambda: listener in loop.readers,
        closed=closed,
        close=lambda: control.close(lambda: closed.append(loop.now)),
    )
    control._abort()
    control.close(lambda: None)
    for sock in sockets:
        sock.close()


def turned_away(sock):
    return sock.recv(1) == b""


def test_clients_that_may_only_read_leave_room_for_those_that_may_command(control, caplog):
    """48 of 64; that others are turned away is logged once, until a client fits in again."""
    assert (CLIENTS, server._RESERVED) == (64, RESERVED)
    first = [control.connect(commands=False) for _ in range(CLIENTS - RESERVED)]
    assert caplog.records == []
    assert turned_away(control.connect(commands=False))
    assert turned_away(control.connect(commands=False))
    (record,) = caplog.records
    assert f"{CLIENTS - RESERVED} clients" in record.getMessage()
    assert f"user {os.getuid()}" in record.getMessage()
    for _ in range(RESERVED):
        control.connect()
    assert len(control.server._clients) == CLIENTS
    assert turned_away(control.connect())
    assert len(caplog.records) == 2
    first[0].close()
    next(iter(control.server._clients)).abort()
    control.connect()
    assert turned_away(control.connect())
    assert len(caplog.records) == 3


def test_the_service_has_a_name_and_a_version(control):
    """As GetInfo answers."""
    sock = control.connect()
    sock.sendall(b'{"method":"org.varlink.service.GetInfo"}\0')
    (client,) = control.server._clients
    control.loop.readers[client.sock.fileno()]()
    info = json.loads(sock.recv(65536)[:-1])["parameters"]
    assert (info["vendor"], info["product"]) == ("preforkd", "preforkd")
    assert info["version"] == preforkd.VERSION


def test_without_a_descriptor_for_a_client_accepting_pauses_for_a_second(control, caplog):
    """The client waits in the kernel's queue, and would be reported again in each turn."""
    listener = control.server._sock

    def full():
        raise OSError(errno.EMFILE, "Too many open files")

    control.server._sock = SimpleNamespace(fileno=listener.fileno, accept=full)
    control.loop.readers[listener.fileno()]()
    control.server._sock = listener
    assert not control.listens()
    (record,) = caplog.records
    assert "Too many open files" in record.getMessage()
    control.loop.run(0.99)
    assert not control.listens()
    control.loop.run(0.01)
    assert control.listens()


def test_nothing_to_accept_is_no_reason_to_pause(control):
    """The client has gone meanwhile."""
    control.server._sock.setblocking(False)
    control.loop.readers[control.server._sock.fileno()]()
    assert control.listens()
    assert control.server._clients == set()


def test_a_client_that_is_lost_while_it_is_accepted_is_closed(control, monkeypatch):
    """Whose credentials cannot be had; the next one is served."""

    def gone(sock):
        raise ConnectionResetError

    monkeypatch.setattr(server, "peer_of", gone)
    assert turned_away(control.connect())
    monkeypatch.setattr(server, "peer_of", lambda sock: Peer(1, 0, frozenset()))
    control.connect()
    assert len(control.server._clients) == 1


def test_the_end_waits_two_seconds_for_answers(control):
    """Accepting ends at once, the file goes, idle clients are closed; one that does not read is cut off."""
    control.connect()
    sock = control.connect()
    client = next(one for one in control.server._clients if not one._unsent)
    client._answer(b"x" * (8 << 20))
    control.close()
    assert control.server._clients == {client}
    assert not control.listens()
    assert not control.path.exists()
    control.loop.run(1.99)
    assert control.closed == []
    control.loop.run(0.01)
    assert control.closed == [control.loop.now]
    assert control.server._clients == set()
    sock.close()


def test_the_end_without_clients_is_at_once(control):
    """And a pause of accepting is over with it."""
    control.server._pause_accepting("no descriptors")
    control.close()
    assert control.closed == [100.0]
    control.loop.run(5)
    assert not control.listens()
    assert control.closed == [100.0]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EINVAL, "Invalid argument"), "Invalid argument; PrivateUsers=yes"),
        (OSError(errno.EPERM, "Operation not permitted"), "Operation not permitted"),
        (SystemFailure("there is no group 'web'"), "there is no group 'web'"),
    ],
)
def test_a_group_that_cannot_be_admitted_is_logged_with_the_reason(
    control, monkeypatch, caplog, error, reason
):
    """The socket serves on without it; a group that the user namespace does not have gets a hint."""

    def fail(*_arguments):
        raise error

    monkeypatch.setattr(bind, "set_members", fail)
    control.server.set_access(0o660, "web")
    (record,) = caplog.records
    assert f"'web': {reason}" in record.getMessage()
    assert ("PrivateUsers" in record.getMessage()) == ("PrivateUsers" in reason)


def test_access_is_set_again_when_the_group_goes(control, monkeypatch):
    """Its members are taken from the file's list; without a group before or now, the mode is enough."""
    calls = []
    monkeypatch.setattr(bind, "set_members", lambda sock, mode, group: calls.append(group))
    monkeypatch.setattr(bind, "set_access", lambda sock, mode, *_: calls.append(oct(mode)))
    for group in ("web", "", ""):
        control.server.set_access(0o640, group)
    assert calls == ["web", "", "0o640"]
    control.close()
    control.server.set_access(0o600, "web")
    assert len(calls) == 3
