"""One connection: what it receives, its requests, and the rate of a body."""

import time

import pytest

from preforkd.http.bounds import RequestError
from preforkd.http.states import State
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
