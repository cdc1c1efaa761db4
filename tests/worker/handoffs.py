"""What the tests of handoffs share: workers on one listener and with one handoff queue."""

import threading
from contextlib import contextmanager

from preforkd.ipc.handoff import HandoffQueue, pair
from tests.worker.serving import Worker, read_answer

GET = b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n"


class SlowApplication:
    """Answer with the worker's name and the body's length; /slow blocks until ``go`` is set."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read()
        if environ["PATH_INFO"] == "/slow":
            self.entered.release()
            assert self.go.wait(20)
        start_response("200 OK", [("X-Body", str(len(body)))])
        return [threading.current_thread().name.encode()]


@contextmanager
def workers_sharing_a_queue(application, size=2, **settings):
    """Run workers on one listener and with one handoff queue."""
    ends = pair()
    first = None
    workers = []
    handoffs = [HandoffQueue(ends[0].dup(), ends[1].dup()) for _ in range(size)]
    for handoff in handoffs:
        worker = Worker(application, "wsgi", beside=first, handoff=handoff, **settings)
        first = first or worker
        workers.append(worker)
    try:
        yield workers
    finally:
        application.go.set()
        for worker in workers:
            worker.close()
        for end in (*handoffs, *ends):
            end.close()


def read_answers(sock, count):
    """Return ``count`` short answers, unparsed."""
    data = b""
    while data.count(b"200 OK") < count or data.endswith(b"\r\n"):
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    return data


def connection_held_by(workers, name, timeout=20.0):
    """Return a kept connection that is held by the worker with this name."""
    others = []
    try:
        for _ in range(200):
            sock = workers[0].connect()
            sock.settimeout(timeout)
            sock.sendall(GET % b"/")
            if read_answer(sock)[1] == name:
                return sock
            others.append(sock)
    finally:
        for sock in others:
            sock.close()
    raise AssertionError("that worker never accepts")
