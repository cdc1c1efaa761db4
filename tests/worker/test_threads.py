"""workers.threads: several requests at a time in one worker."""

import time

from preforkd.config.settings import HttpSettings, Settings, WorkersSettings
from tests.worker.handoffs import GET, SlowApplication, read_answers, workers_sharing_a_queue
from tests.worker.serving import read_answer


def test_threads_answer_at_the_same_time():
    """One worker runs as many requests as it has threads."""
    application = SlowApplication()
    whole = Settings(workers=WorkersSettings(threads=3))
    with workers_sharing_a_queue(application, size=1, whole=whole) as (worker,):
        slow = [worker.connect() for _ in range(3)]
        for sock in slow:
            sock.sendall(GET % b"/slow")
        for _ in slow:
            assert application.entered.acquire(timeout=20)
        fourth = worker.connect()
        fourth.sendall(GET % b"/" + GET % b"/second")
        assert worker.slot.read(1e18).busy_since is not None
        application.go.set()
        for sock in slow:
            assert read_answer(sock)[1].startswith(b"preforkd-thread-")
        assert read_answers(fourth, 2).count(b"\npreforkd-thread-") == 2
        for sock in (*slow, fourth):
            sock.close()
        deadline = time.monotonic() + 20
        while worker.slot.read(1e18).busy_since is not None:
            assert time.monotonic() < deadline


def test_a_worker_without_a_free_thread_hands_off():
    """A kept connection of a worker whose threads are all busy is answered by another worker."""
    application = SlowApplication()
    with workers_sharing_a_queue(
        application, whole=Settings(workers=WorkersSettings(threads=2))
    ) as workers:
        kept = [workers[0].connect() for _ in range(8)]
        for sock in kept:
            sock.sendall(GET % b"/")
            read_answer(sock)
        slow = [workers[0].connect() for _ in range(3)]
        for sock in slow:
            sock.sendall(GET % b"/slow")
            assert application.entered.acquire(timeout=20)
        for sock in kept:  # three of four threads are taken
            sock.sendall(GET % b"/")
            assert b"thread" in read_answer(sock)[1]
        application.go.set()
        for sock in (*slow, *kept):
            sock.close()


def test_a_failing_thread_ends_its_connection_only(caplog):
    """The answer is 500, and the thread serves the next request."""

    class Fails(SlowApplication):
        def __call__(self, environ, start_response):
            raise KeyError("boom")

    whole = Settings(workers=WorkersSettings(threads=2), http=HttpSettings(keep_alive=5))
    with workers_sharing_a_queue(Fails(), size=1, whole=whole) as (worker,):
        for _ in range(4):
            assert worker.ask(GET % b"/").startswith(b"HTTP/1.1 500 ")
    assert caplog.text.count("the application failed") == 4
