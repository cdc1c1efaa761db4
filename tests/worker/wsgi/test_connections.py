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


def test_the_connections_that_are_held(held):
    """Their number is in the slot; those that wait for a request are idle."""
    with connected() as (first, _), connected() as (second, _):
        held.add(first)
        held.add(second)
        assert (len(held), list(held), held.counts) == (2, [first, second], [1, 2])
        held.wait(first, Waiting.NEXT_REQUEST, select.EPOLLIN)
        held.wait(second, Waiting.BODY, select.EPOLLIN)
        assert list(held.idle) == [first]
        held.close(first)
        held.close(second)
        assert held.counts == [1, 2, 1, 0]
        assert held.deadlines.expired(float("inf")) == []


def test_events_that_are_registered_are_changed(held):
    """To others and to none."""
    with connected() as (connection, client):
        held.add(connection)
        held.register(connection, 0)
        held.register(connection, select.EPOLLIN)
        held.register(connection, select.EPOLLIN)
        assert held._epoll.poll(0) == []
        held.register(connection, select.EPOLLOUT)
        assert held._epoll.poll(20) == [(connection.fd, select.EPOLLOUT)]
        client.sendall(b"x")
        held.register(connection, select.EPOLLIN)
        assert held._epoll.poll(20) == [(connection.fd, select.EPOLLIN)]
        held.close(connection)
        assert connection.registered == 0
        assert held._epoll.poll(0) == []


def test_a_client_that_is_to_read_begins_a_window_of_its_output(held):
    """Whether it has read is known from what is unsent now and at the deadline."""
    marks = []
    with connected() as (connection, _):
        held.add(connection)
        connection.outbox = SimpleNamespace(
            mark=lambda: marks.append(1), drop=lambda: None, pending=False
        )
        held.wait(connection, Waiting.CLOSE, select.EPOLLIN)
        assert marks == []
        held.wait(connection, Waiting.WRITE, select.EPOLLOUT)
        assert marks == [1]
        assert list(held.deadlines.of(Waiting.WRITE)) == [connection]
        held.close(connection)


def test_a_connection_without_unread_input_is_closed_at_once(held):
    """The client has ended its input."""
    with connected() as (connection, client):
        held.add(connection)
        connection.engine.receive(GET)
        assert connection.take_request()
        connection.engine.receive(b"")
        connection.engine.answer_ended(keep=False)
        held.end(connection)
        assert client.recv(1) == b""
        assert not held.by_descriptor


def test_what_is_left_of_a_closed_connection_is_logged(held):
    """Before its request is freed."""
    logged = []

    class Log:
        def closed(self, connection):
            logged.append(connection.closed)

    held._records = Log()
    with connected() as (connection, _):
        held.add(connection)
        held.close(connection)
        held.close(connection)
        assert logged == [False]
