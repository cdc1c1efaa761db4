"""What cannot be used in a forked process, found by what it is."""

import asyncio
import concurrent.futures
import multiprocessing
import sys
from types import ModuleType

import pytest

from preforkd.zygote import fork_hazards


def words():
    return {found.description for found in fork_hazards.find()}


def test_what_is_in_use_is_found():
    """An event loop until it is closed, a pool until it is ended, an executor when it has threads."""
    before = words()
    loop = asyncio.new_event_loop()
    threads = concurrent.futures.ThreadPoolExecutor(1)
    processes = concurrent.futures.ProcessPoolExecutor(1)
    pool = multiprocessing.get_context("spawn").Pool(1)
    try:
        assert words() - before == {"an event loop of asyncio", "a pool of multiprocessing"}
        threads.submit(int).result()
        assert "a ThreadPoolExecutor that has been used" in words()
        assert "a ProcessPoolExecutor that has been used" not in words()
    finally:
        loop.close()
        threads.shutdown()
        processes.shutdown()
        pool.terminate()
        pool.join()
    assert words() <= before | {"a ThreadPoolExecutor that has been used"}


def test_objects_of_libraries_that_are_not_installed(monkeypatch):
    """A channel of gRPC by its class; what cannot be asked is passed over."""
    grpc, zmq = ModuleType("grpc"), ModuleType("zmq")
    grpc.Channel = type("Channel", (), {})
    zmq.Context = type("Context", (), {"closed": property(lambda _: 1 / 0)})
    monkeypatch.setitem(sys.modules, "grpc", grpc)
    monkeypatch.setitem(sys.modules, "zmq", zmq)

    class Ours(grpc.Channel):
        pass

    class Lazy:
        @property
        def __class__(self):
            raise AssertionError("an object of another type was asked what it is")

    held = [zmq.Context(), Lazy()]
    assert not words() & {"a channel of gRPC", "a context of ZeroMQ"}
    held.append(Ours())
    assert "a channel of gRPC" in words()
    assert "a context of ZeroMQ" not in words()


@pytest.mark.parametrize(
    ("module", "belongs"),
    [
        ("grpc", True),
        ("grpc._channel", True),
        ("grpcio", False),
        ("", False),
        ("multiprocessing", False),
    ],
)
def test_threads_of_what_was_found(module, belongs):
    """By the module in which they run; a loop has none."""
    found = [fork_hazards.ForkHazard("a channel", "grpc"), fork_hazards.ForkHazard("a loop", "")]
    assert fork_hazards.belongs(module, found) is belongs
