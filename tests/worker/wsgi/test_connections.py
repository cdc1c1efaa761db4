"""The connections that a worker holds: epoll, deadlines, and how each ends."""

import select
from types import SimpleNamespace

import pytest

from preforkd.worker.wsgi.connection import Waiting
from preforkd.worker.wsgi.connections import Connections
from preforkd.worker.wsgi.records import Records
from tests.worker.wsgi.connecting import GET, connected


@pytest.fixture
def held():
    """Yield connections of a worker, whose slot is a list of the counts that were set."""
    counts = []
    writer = SimpleNamespace(set_connections=counts.append)
    with select.epoll() as epoll:
        timeouts = dict.fromkeys(Waiting, 100.0)
        made = Connections(
            SimpleNamespace(epoll=epoll, slot_writer=writer), timeouts, Records(None)
        )
        made.counts = counts
        yield made


def test_a_suspended_connection_has_neither_events_nor_a_deadline(held):
    """It belongs to the application."""
    with connected() as (connection, client):
        held.add(connection)
        held.wait(connection, Waiting.NEXT_REQUEST, select.EPOLLIN)
        assert list(held.idle) == [connection]
        client.sendall(b"x")
        assert held._epoll.poll(20) == [(connection.fd, select.EPOLLIN)]
        held.suspend(connection)
        assert held._epoll.poll(0) == []
        assert connection.waiting is None
        assert not held.idle
        held.close(connection)


def test_a_connection_is_closed_once(held):
    """A second time has no effect on another one that has its descriptor by then."""
    with connected() as (connection, client):
        held.add(connection)
        held.close(connection)
        assert client.recv(1) == b""
        held.by_descriptor[connection.fd] = other = SimpleNamespace()
        held.close(connection)
        assert held.by_descriptor == {connection.fd: other}
        assert held.counts == [1, 0]


def test_an_answer_that_is_still_to_be_closed_is_ready(held):
    """The application closes it, also when its connection is lost."""
    with connected() as (connection, _):
        held.add(connection)
        connection.after_sending = print
        held.close(connection)
        assert list(held.ready) == [connection]


@pytest.mark.parametrize("unread", [False, True])
def test_input_that_may_be_left_is_waited_for(held, unread):
    """So that a reset does not destroy the answer; a second end closes."""
    with connected() as (connection, client):
        held.add(connection)
        connection.engine.receive(GET + GET * unread)
        assert connection.take_request()
        connection.engine.answer_ended(keep=False)
        held.end(connection)
        assert client.recv(1) == b""
        # It announced no end: there may be another request.
        assert connection.waiting is Waiting.CLOSE
        held.end(connection)
        assert not held.by_descriptor
