"""Zygotes forked from warm workers, with real processes."""

import pytest

from tests.process.load import Load
from tests.process.service import ask, children_of, read_all

APP = """
import os, socketserver, threading, time

built = []

def app(environ, start_response):
    if not built:
        built.append(os.getpid())
        if environ["PATH_INFO"] == "/thread":
            threading.Thread(target=time.sleep, args=(1000,), name="of a request", daemon=True).start()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['QUERY_STRING']} built by {built[0]} in {os.getpid()}".encode()]

def handle(connection, peer):
    built.append(1)
    connection.sendall(f"{len(built)} in {os.getpid()}\\n".encode())

async def asgi(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()

class hooks:
    broken = ""

    @staticmethod
    def before_refork():
        if os.path.exists("raise"):
            raise RuntimeError("not now")

    @staticmethod
    def after_fork():
        if os.path.exists("hang") and "PREFORKD_WORKER" not in os.environ:
            time.sleep(1000)
        if os.path.exists("die") and "PREFORKD_WORKER" in os.environ:
            os._exit(3)
"""


@pytest.fixture
def started(service):
    """A service with the application and these settings; returns its address."""
    return lambda settings="", target="wsgi:warm:app": service.serve("warm", APP, settings, target)


def renewed(service, before):
    """Return when all workers are others than before."""
    service.until(
        lambda status: (
            status["ready"] == status["target"] == len(status["workers"])
            and not before & {row["pid"] for row in status["workers"]}
        )
    )


def test_workers_share_what_a_warm_one_has_built(service, started):
    """After a refork all workers have what the warmest had made since its start."""
    address = started("workers: 3")
    for _ in range(20):
        warm = int(ask(address).rpartition(b" in ")[2])
    before = set(service.workers())
    builders = {row["pid"] for row in service.status()["workers"]}
    assert service.control("refork").returncode == 0
    renewed(service, before)
    seen = {ask(address).partition(b"built by ")[2].split()[0] for _ in range(20)}
    assert len(seen) == 1
    assert int(seen.pop()) in builders
    assert warm in builders
    assert service.status()["generation"] == 1


@pytest.mark.parametrize("threads", [1, 4])
def test_ten_reforks_under_load_lose_nothing(service, started, threads):
    """New and kept connections; the old processes are gone, and no descriptor has gathered."""
    address = started(f"workers: {{count: 3, threads: {threads}}}")
    with Load(address, rate=200.0) as load:
        for _ in range(10):
            before = set(service.workers())
            answer = service.control("refork")
            assert answer.returncode == 0, answer.stderr
            renewed(service, before)
            load.wait_for(20)
    assert load.result.lost == 0, load.result.bad
    assert len(children_of(service.pid)) == 4
    zygote = service.zygote()
    assert len(descriptors(zygote)) <= 16, descriptors(zygote)


def descriptors(pid: int) -> list[str]:
    import os
    from pathlib import Path

    return [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]


def test_reforks_that_fail_change_nothing(service, started):
    """A hook that raises, a zygote that hangs, one whose workers die: told, given up, nothing lost."""
    address = started("workers: 3\nhooks: warm:hooks\ntimeouts: {boot: 2s}")
    with Load(address, rate=200.0) as load:
        before = set(service.workers())
        for trouble, said in (
            ("raise", "the hook before_refork failed: RuntimeError: not now"),
            ("hang", "the zygote forked from a worker was not ready within 2 s"),
            ("die", "before it was ready: exit status 3"),
        ):
            (service.folder / trouble).touch()
            answer = service.control("refork")
            assert answer.returncode == 69
            assert said in answer.stderr
            assert "refork of generation 1 failed" in service.log
            (service.folder / trouble).unlink()
            load.wait_for(50)
        assert set(service.workers()) == before
        assert service.control("refork").returncode == 0
        renewed(service, before)
        load.wait_for(50)
    assert load.result.lost == 0, load.result.bad


def test_a_worker_that_has_answered_enough_forks_the_zygote(service, started):
    """memory.refork.after: without being asked."""
    address = started("workers: 2\nmemory: {refork: {after: 50 requests}}")
    before = set(service.workers())
    with Load(address, rate=100.0) as load:
        load.wait_for(150)
        renewed(service, before)
    assert load.result.lost == 0
    assert "requests)" in service.log.partition("forks the next zygote")[2]


def test_a_stream_handler_is_forked_anew(service, started):
    """What its module holds goes to the new workers."""
    address = started("workers: 1", "stream:warm:handle")
    for _ in range(5):
        read_all(address)
    before = set(service.workers())
    assert service.control("refork").returncode == 0
    renewed(service, before)
    assert int(read_all(address).split()[0]) == 6


def test_what_cannot_be_forked_says_so(service, started):
    """An ASGI application; the exit status blames the configuration."""
    started("workers: 1", "asgi:warm:asgi")
    answer = service.control("refork")
    assert answer.returncode == 78
    assert "kind asgi cannot be forked" in answer.stderr


def test_a_guarded_refork(service, started):
    """memory.refork: once: after 25 requests, once, and not if the worker has a thread; the reason is logged."""
    address = started("workers: 2\nmemory: {refork: once}")
    before = set(service.workers())
    with Load(address, rate=100.0) as load:
        load.wait_for(60)
        renewed(service, before)
        after = set(service.workers())
        load.wait_for(120)
    assert load.result.lost == 0
    assert set(service.workers()) == after
    assert service.log.count("forks the next zygote") == 1


def test_a_guarded_refork_is_refused(service, started):
    """The worker goes on, and no other is asked."""
    address = started("workers: 1\nmemory: {refork: once}")
    before = set(service.workers())
    with Load(address, rate=100.0, path="/thread") as load:
        service.until(lambda _: "refork of generation 1 failed" in service.log)
        load.wait_for(60)
    assert load.result.lost == 0
    assert "must not be cloned: a thread (of a request)" in service.log
    assert set(service.workers()) == before
    assert service.log.count("refork of generation 1 failed") == 1
