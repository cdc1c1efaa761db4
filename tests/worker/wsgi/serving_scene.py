"""A connection that is served without a loop: the application, the handoff and the clock are the test's."""

import select
import time
from types import SimpleNamespace

from preforkd.config.settings import HttpSettings
from preforkd.worker.wsgi.connection import Waiting
from preforkd.worker.wsgi.connections import Connections
from preforkd.worker.wsgi.reading import Reading
from preforkd.worker.wsgi.records import Records
from preforkd.worker.wsgi.serving import Serving

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Scene:
    """`Serving` with one connection; ``answered`` are the targets and bodies of its requests.

    ``free``: the application can be called. ``taken``: connections that another worker takes.
    """

    pool = None

    def __init__(self, connection, monkeypatch, epoll):
        self.connection, self.now = connection, 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.answered, self.errors, self.taken, self.recovered = [], [], [], 0
        self.free, self.gives, self.retired = True, False, 0
        self.takeover = SimpleNamespace(active=False)
        writer = SimpleNamespace(set_connections=lambda _: None)
        acceptor = SimpleNamespace(epoll=epoll, slot_writer=writer, retire=self.retire)
        records = Records(None)
        self.held = Connections(acceptor, dict.fromkeys(Waiting, 50.0), records)
        self.held.add(connection)
        self.serving = Serving(
            acceptor,
            self.held,
            records=records,
            answering=self,
            reading=Reading(self.held, records, self, HttpSettings()),
            handoff=self,
        )

    # --- what `Serving` calls --------------------------------------------------------------------

    def retire(self):
        self.retired += 1

    def recover(self):
        self.recovered += 1

    def can_call(self):
        return self.free

    def give(self, connection):
        if self.gives:
            self.taken.append(connection)
        return self.gives

    def answer(self, connection, cached, body, length):
        self.answered.append((cached.head.target, body.read()))
        assert len(self.answered[-1][1]) == length
        connection.served += 1
        keep = cached.keep
        connection.engine.answer_begun()
        connection.engine.answer_ended(keep)
        if keep:
            connection.outbox.send_answer(ANSWER)
        else:
            connection.outbox.send_last(ANSWER)

    def answer_request(self, connection):
        request, connection.request = connection.request, None
        self.answer(connection, request.cached, request.body, request.length)

    def close_answer(self, connection):
        after, connection.after_sending = connection.after_sending, None
        after()

    def send_error(self, connection, status, _reason):
        self.errors.append(status)
        connection.outbox.send_nowait(b"error")
        return 5

    # --- what a test asks ------------------------------------------------------------------------

    @property
    def closed(self):
        return not self.held.by_descriptor

    def wait(self, kind):
        """Let the connection wait for this."""
        self.held.wait(self.connection, kind, select.EPOLLIN)
