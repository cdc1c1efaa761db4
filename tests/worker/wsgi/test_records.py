"""The access log's records: when each is logged, and with how many bytes."""

import time

from preforkd.logs.access_log import CLIENT_CLOSED_REQUEST
from preforkd.worker.wsgi.records import Records
from tests.worker.wsgi.connecting import GET, POST, connected


class Log(list):
    log = list.append
    flushed = 0

    def flush(self):
        self.flushed += 1


def answered(records, connection, length, pending):
    """Record an answer of which so many bytes are kept."""
    connection.engine.receive(GET)
    assert connection.take_request()
    if pending:
        connection.outbox._keep(bytes(pending))
    records.answered(connection, connection.request.cached, 200, length, 0.5)


def test_an_answer_that_was_sent_is_logged_at_once():
    """With its status, length and client."""
    log = Log()
    with connected() as (connection, _):
        answered(Records(log), connection, 10, 0)
        (record,) = log
        assert (record.remote, record.status, record.length) == ("192.0.2.1", 200, 10)


def test_an_answer_is_logged_with_the_bytes_that_were_sent():
    """When its connection closes: what is kept was not sent; nothing sent at all is 499."""
    for sent, status, length in ((5, 200, 6), (0, CLIENT_CLOSED_REQUEST, 0)):
        log = Log()
        records = Records(log)
        with connected() as (connection, _):
            answered(records, connection, 10, 4)
            assert not log
            connection.outbox.sent = sent
            records.closed(connection)
            (record,) = log
            assert (record.status, record.length) == (status, length)


def test_a_request_that_never_became_complete_is_logged_when_its_connection_closes():
    """Its head, or what there is of it; an idle connection is no request."""
    for data, target in ((POST, b"/p"), (b"GET /begun HTT", b"GET /begun HTT"), (b"", None)):
        log = Log()
        with connected() as (connection, _):
            connection.engine.receive(data)
            assert not connection.take_request()
            Records(log).closed(connection)
            assert [(one.status, one.request.target) for one in log] == (
                [] if target is None else [(CLIENT_CLOSED_REQUEST, target)]
            )


def test_a_refusal_has_its_status_and_length():
    """And is the only record of its request."""
    log = Log()
    records = Records(log)
    with connected() as (connection, _):
        connection.engine.receive(POST)
        assert not connection.take_request()

        def send():
            connection.engine.refused()
            return 7

        records.refused(connection, 408, send)
        records.closed(connection)
        assert [(one.status, one.length, one.request.target) for one in log] == [(408, 7, b"/p")]


def test_without_a_log_nothing_is_recorded():
    """A refusal is sent all the same."""
    records, sent = Records(None), []
    assert not records
    with connected() as (connection, _):
        records.refused(connection, 400, lambda: sent.append(1) or 1)
        records.closed(connection)
        records.flush()
        assert sent == [1]
        assert connection.record is None


def test_an_overdue_request_is_logged_and_written_at_once(monkeypatch):
    """The process ends next; its time is that since its beginning."""
    log = Log()
    monkeypatch.setattr(time, "monotonic", lambda: 107.5)
    with connected() as (connection, _):
        connection.engine.receive(GET)
        assert connection.take_request()
        Records(log).overdue(connection, connection.request.cached, 504, 12, 100.0)
        Records(None).overdue(connection, connection.request.cached, 504, 12, 100.0)
    (one,) = log
    assert (one.remote, one.status, one.length, one.seconds) == ("192.0.2.1", 504, 12, 7.5)
    assert log.flushed == 1


def test_a_refusal_that_is_kept_is_logged_when_it_is_sent():
    """Or when its connection ends: with what was sent of it. A refusal takes no time."""
    log = Log()
    records = Records(log)
    with connected() as (connection, _):
        connection.engine.receive(b"GET / nonsense")
        connection.outbox.sent = 7  # of an earlier answer

        def send():
            connection.outbox._keep(b"refusal")
            return 7

        records.refused(connection, 400, send)
        assert log == []
        records.sent(connection)
        records.sent(connection)
    assert [(one.status, one.length, one.seconds) for one in log] == [
        (CLIENT_CLOSED_REQUEST, 0, 0.0)
    ]


def test_the_client_that_a_proxy_named_is_logged():
    """Not the proxy; for answers, overdue requests and those that are incomplete."""
    log = Log()
    records = Records(log)
    with connected() as (connection, _):
        connection.engine.receive(GET + POST)
        assert connection.take_request()
        cached = connection.request.cached
        cached.remote = "1.2.3.4"
        records.answered(connection, cached, 200, 1, 0.5)
        records.overdue(connection, cached, 504, 1, 0.5)
        connection.engine.answer_ended(keep=True)
        assert not connection.take_request()
        connection.engine.parsed.remote = "5.6.7.8"
        records.closed(connection)
    assert [one.remote for one in log] == ["1.2.3.4", "1.2.3.4", "5.6.7.8"]
    assert (log[-1].length, log[-1].seconds) == (0, 0.0)
    records.flush()
    assert log.flushed == 2
