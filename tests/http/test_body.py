"""Bodies that are kept whole, in memory or in a file."""

import errno
import io
import os

import pytest
from hypothesis import given, strategies as st

from preforkd.http import body
from preforkd.http.body import BodyStore, BudgetError, StorageError
from preforkd.http.head import Bounds, Budget

BOUNDS = Bounds(max_field=200, max_header=400, max_fields=3, max_body=1000, spool=100)


def test_a_large_body_waits_in_a_file():
    """Above the threshold; what came before is in it."""
    store = BodyStore(BOUNDS)
    store.write(b"a" * 60)
    store.write(b"b" * 60)
    file = store.finish()
    assert file.fileno() > 2
    assert file.read() == b"a" * 60 + b"b" * 60
    file.close()


def test_a_full_disk_is_told(monkeypatch):
    """As an error of its own, which fails this request and nothing else."""

    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(body.tempfile, "TemporaryFile", full)
    store = BodyStore(BOUNDS)
    with pytest.raises(StorageError, match="No space left"):
        store.write(b"a" * 101)
    store.close()


def test_many_small_parts_cost_what_they_hold():
    """A body that comes byte by byte is kept as one, not as thousands of objects."""
    store = BodyStore(Bounds(spool=10_000))
    for number in range(9_000):
        store.write(bytes([number % 256]))
        assert len(store._parts) < 16
    assert store.finish().read() == bytes(number % 256 for number in range(9_000))


def test_bodies_share_the_room_in_files():
    """Who finds none is refused; a body has its room until it is closed, by whoever has it."""
    bounds = Bounds(spool=10, budget=Budget(memory=1000, files=100))
    first, second = BodyStore(bounds), BodyStore(bounds)
    first.write(b"a" * 60)
    second.write(b"b" * 9)
    with pytest.raises(BudgetError, match=r"http\.spool_total"):
        second.write(b"b" * 40)
    second.close()
    file = first.finish()
    third = BodyStore(bounds)
    third.write(b"c" * 40)
    with pytest.raises(BudgetError):
        third.write(b"c")
    file.close()
    file.close()
    third.write(b"c" * 60)
    with third.finish() as file:
        assert file.read() == b"c" * 100


def test_memory_for_bodies_has_an_end():
    """Small ones are kept in files then, and in memory again when there is room."""
    bounds = Bounds(spool=1000, budget=Budget(memory=100, files=1000))
    first, second, third = (BodyStore(bounds) for _ in range(3))
    first.write(b"a" * 60)
    second.write(b"b" * 60)
    with second.finish() as file:
        assert file.fileno() > 2
    with first.finish() as memory:
        assert memory.read() == b"a" * 60
    third.write(b"c" * 60)
    assert isinstance(third.finish(), io.BytesIO)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1, 7, 30, 200, -1, -2])), max_size=40)
)
def test_what_bodies_take_is_given_back(steps):
    """Whatever they were and however they ended, all room is free afterwards; theirs is never less."""
    budget = Budget(memory=150, files=400)
    bounds = Bounds(spool=50, max_body=300, budget=budget)
    stores, files = [BodyStore(bounds) for _ in range(3)], []
    for index, what in steps:
        store = stores[index]
        if what > 0:
            try:
                store.write(b"x" * what)
                continue
            except StorageError:
                store.close()
        elif what == -1:
            store.close()
        else:
            files.append(store.finish())
        stores[index] = BodyStore(bounds)
    for open_one in (*stores, *files):
        open_one.close()
    assert budget._left == {"memory": 150, "files": 400}


def test_the_bound_of_bodies_in_memory():
    """A body of that size is in memory, one byte more is in a file; the budget is the same to the byte."""
    for size, budget, in_memory in ((100, 100, True), (101, 1000, False), (100, 99, False)):
        store = BodyStore(Bounds(spool=100, budget=Budget(memory=budget, files=101)))
        store.write(b"a" * size)
        with store.finish() as file:
            assert isinstance(file, io.BytesIO) is in_memory
            assert file.read() == b"a" * size
    store = BodyStore(Bounds(spool=10, budget=Budget(memory=10, files=100)))
    with pytest.raises(BudgetError, match="request bodies use all of"):
        store.write(b"a" * 101)


def test_an_incomplete_write_is_continued(monkeypatch):
    """write(2) may take less than it is given; whoever reads gets all bytes, in their order."""

    class Short(io.FileIO):
        def write(self, data):
            return super().write(data[:7])

    monkeypatch.setattr(
        body.tempfile, "TemporaryFile", lambda **_: Short(os.memfd_create("x"), "w+")
    )
    store = BodyStore(BOUNDS)
    store.write(bytes(range(90)))
    store.write(bytes(range(90, 180)))
    store.write(b"end")
    with store.finish() as file:
        assert file.read() == bytes(range(180)) + b"end"
    assert store.length == 183


def test_what_is_dropped_is_released_at_once(monkeypatch):
    """The file's disk space, and the budget of memory and files."""
    files = []

    def opened(**how):
        files.append(open(os.memfd_create("x"), "w+b", **how))  # noqa: SIM115 - the store closes it
        return files[-1]

    monkeypatch.setattr(body.tempfile, "TemporaryFile", opened)
    budget = Budget(memory=100, files=200)
    store = BodyStore(Bounds(spool=50, budget=budget))
    store.write(b"a" * 40)
    assert budget._left == {"memory": 60, "files": 200}
    store.write(b"a" * 40)
    assert budget._left == {"memory": 100, "files": 120}
    store.close()
    assert files[0].closed
    assert budget._left == {"memory": 100, "files": 200}
