"""One connection: what it receives, its requests, and the rate of a body."""

import io
import socket
import time
from types import SimpleNamespace

import pytest

from preforkd.apps import wsgi
from preforkd.http.bounds import Bounds, Budget, RequestError
from preforkd.http.states import State
from preforkd.worker.listener_context import ListenerContext
from preforkd.worker.wsgi.connection import Connection
from preforkd.worker.wsgi.outbox import OutputLimits
from preforkd.worker.wsgi.response import ClientGoneError
from tests.worker.wsgi.connecting import GET, POST, connected


def test_what_is_received_and_what_is_not_there_yet():
    """None without input, bytes, and empty bytes at the end; a reset is a client that has gone."""
    with connected() as (connection, client):
        assert connection.receive() is None
        client.sendall(b"abc")
        assert connection.receive() == b"abc"
        client.shutdown(1)
        assert connection.receive() == b""
    with pytest.raises(ClientGoneError):
        connection.receive()


def test_a_body_is_received_into_a_buffer():
    """As many bytes as have arrived, and none without input."""
    with connected() as (connection, client), memoryview(bytearray(8)) as view:
        assert connection.receive_into(view) == 0
        client.sendall(b"abc")
        assert connection.receive_into(view) == 3
        assert bytes(view[:3]) == b"abc"


def test_a_request_is_taken_when_it_is_complete():
    """Without a body, with one that arrives later, and one behind the other only after its answer."""
    with connected() as (connection, _):
        assert not connection.take_request()
        connection.engine.receive(GET + POST + b"ab")
        assert connection.take_request()
        assert (connection.request.cached.head.target, connection.request.length) == (b"/", 0)
        assert not connection.take_request()
        connection.engine.answer_ended(keep=True)
        assert not connection.take_request()
        connection.engine.receive(b"cd")
        assert connection.take_request()
        assert connection.request.body.read() == b"abcd"
        assert connection.request.length == 4


def test_a_body_above_its_bound_is_refused():
    """Before it is received."""
    with connected(max_body=3) as (connection, _):
        connection.engine.receive(POST)
        with pytest.raises(RequestError, match="too large"):
            connection.take_request()


def test_the_rate_of_a_body_is_measured_in_each_window(monkeypatch):
    """Within a window nothing is known; then the bytes of that window count, not those before."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with connected() as (connection, _):
        connection.engine.receive(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999\r\n\r\n")
        assert not connection.take_request()
        connection.begin_window()
        connection.engine.receive(b"a" * 100)
        assert not connection.take_request()
        now[0] += 5
        assert not connection.is_too_slow(5, 20)
        now[0] += 0.1
        assert not connection.is_too_slow(5, 20)
        now[0] += 5.1
        assert connection.is_too_slow(5, 20)


def test_a_closed_connection_keeps_nothing():
    """The body of an incomplete request, and the one of a request in hand."""
    with connected() as (connection, _):
        connection.engine.receive(POST + b"abcd")
        assert connection.take_request()
        body = connection.request.body
        connection.close()
        assert body.closed
        assert connection.closed
        assert connection.engine.client is State.CLOSED


class Refusing(socket.socket):
    """A socket whose calls fail with ``error``; the sizes of its receives are kept."""

    error = None

    def recv(self, size, flags=0):
        self.sizes = [*getattr(self, "sizes", ()), size]
        return self.fail() or super().recv(size, flags)

    def recv_into(self, *arguments):
        return self.fail() or super().recv_into(*arguments)

    def shutdown(self, how):
        return self.fail() or super().shutdown(how)

    def fail(self):
        if self.error is not None:
            raise self.error


@pytest.fixture
def made():
    """A connection on a socket of this kind, on a listener for every address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=20)
        sock = Refusing(fileno=listener.accept()[0].detach())
    build = wsgi.environ_builder("localhost", "80", secure=False, threads=False)
    context = ListenerContext(0, Bounds(max_body=1 << 30), build, probes={}, wildcard=True)
    limits = OutputLimits(write_timeout=5, budget=Budget())
    connection = Connection(sock, context, limits, "192.0.2.1", "4000")
    with client:
        yield connection, client
        connection.close()


def test_the_server_is_the_address_that_the_client_connected_to(made):
    """On a listener for every address; elsewhere the listener's counts."""
    assert made[0].server_name == "127.0.0.1"
    with connected() as (connection, _):
        assert connection.server_name == ""


@pytest.mark.parametrize(("length", "size"), [(0, 16384), (100_000, 100_000), (900_000, 262_144)])
def test_as_much_is_received_as_a_body_has(made, length, size):
    """16 KiB at least, 256 KiB at most."""
    connection, client = made
    if length:
        connection.engine.receive(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % length
        )
        assert not connection.take_request()
    client.sendall(b"x")
    assert connection.receive() == b"x"
    assert connection.sock.sizes == [size]


@pytest.mark.parametrize("call", ["receive", "receive_into", "shutdown_write"])
def test_an_oserror_of_a_signal_handler_is_raised_as_it_is(made, call):
    """One of the system is a client that has gone."""
    connection, _ = made
    arguments = [memoryview(bytearray(8))] if call == "receive_into" else []
    connection.sock.error = error = OSError("in a handler")
    with pytest.raises(OSError, match="in a handler") as raised:
        getattr(connection, call)(*arguments)
    assert raised.value is error
    connection.sock.error = ConnectionResetError(104, "reset")
    with pytest.raises(ClientGoneError):
        getattr(connection, call)(*arguments)
    connection.sock.error = None


def test_the_sending_side_is_shut_down_alone(made):
    """Input still arrives."""
    connection, client = made
    connection.shutdown_write()
    assert client.recv(1) == b""
    client.sendall(b"late")
    assert connection.receive() == b"late"


def test_what_is_unfinished():
    """Output that is kept, or an answer that the application has to close."""
    with connected() as (connection, _):
        assert not connection.unfinished
        connection.after_sending = print
        assert connection.unfinished
        connection.after_sending = None
        connection.outbox._keep(b"x")
        assert connection.unfinished
        assert not connection.closed


class Secured(SimpleNamespace):
    """A TLS socket, as far as a connection uses it."""

    decrypted, closed = False, ""

    def fileno(self):
        return -1

    def environ(self):
        return {"SSL_PROTOCOL": "TLSv1.3"}

    def has_decrypted(self):
        return self.decrypted

    def close(self):
        self.closed += "closed"

    def close_after_fork(self):
        self.closed += "after fork"


def opening(**found):
    return SimpleNamespace(**{"source": None, "secure": None, "sock": None, **found})


def test_what_an_opening_has_found(made):
    """The client that a proxy named, and TLS, whose decrypted bytes epoll does not report."""
    connection, _ = made
    connection.opening = plain = opening(source=("1.2.3.4", "5"))
    connection.opened(plain, connection.context)
    assert (connection.opening, connection.remote, connection.remote_port) == (None, "1.2.3.4", "5")
    assert not connection.has_decrypted()
    assert connection.tls_environ is None
    sock, secure = connection.sock, Secured()
    connection.opened(opening(secure=secure), connection.context)
    assert (connection.remote, connection.sock) == ("1.2.3.4", secure)
    assert connection.tls_environ == {"SSL_PROTOCOL": "TLSv1.3"}
    assert not connection.has_decrypted()
    secure.decrypted = True
    assert connection.has_decrypted()
    connection.close_after_fork()
    assert secure.closed == "after fork"
    connection.close()
    assert secure.closed == "after forkclosed"
    sock.close()


@pytest.mark.parametrize("step", ["accepted", "secured"])
def test_a_connection_is_closed_within_its_opening(made, step):
    """TLS takes the descriptor away from the socket that was accepted."""
    connection, client = made
    secure = Secured()
    found = {"sock": connection.sock} if step == "accepted" else {"secure": secure}
    connection.opening = opening(**found)
    connection.close()
    if step == "accepted":
        assert client.recv(1) == b""
    else:
        assert secure.closed == "closed"
        connection.sock.close()


def test_a_copy_is_closed_without_a_word_to_the_client(made):
    """Another process has the connection; the body of its request is freed here."""
    connection, client = made
    connection.engine.receive(POST + b"abcd")
    assert connection.take_request()
    with connection.sock.dup():
        connection.close_after_fork()
        assert connection.request.body.closed
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)


def test_a_body_that_is_dropped_gives_its_memory_back():
    """Of a request that is refused before it is complete."""
    budget = Budget(memory=100)
    with connected(budget=budget) as (connection, _):
        connection.engine.receive(POST + b"abc")
        assert not connection.take_request()
        assert not budget.take("memory", 98)
        connection.drop_body()
        connection.drop_body()
        assert budget.take("memory", 100)


def test_a_request_without_a_body_has_an_empty_one():
    """Also one whose chunks are empty."""
    chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    for data in (GET, chunked):
        with connected() as (connection, _):
            connection.engine.receive(data)
            assert connection.take_request()
            assert isinstance(connection.request.body, io.BytesIO)
            assert (connection.request.body.read(), connection.request.length) == (b"", 0)
