"""Shared memory between a worker and the master."""

import fcntl
import os
import time

import pytest

from preforkd.ipc import slots


@pytest.fixture
def page():
    """A slot's two sides, and the rings."""
    descriptor = slots.create("test")
    rings = []
    reader = slots.SlotReader(os.dup(descriptor))
    writer = slots.SlotWriter(descriptor, lambda: rings.append(1))
    yield descriptor, reader, writer, rings
    reader.close()
    writer.close()
    os.close(descriptor)


def test_what_a_worker_writes_the_master_reads(page):
    """Busy since, requests, connections, accepted."""
    _, reader, writer, _ = page
    assert reader.read(time.monotonic()) == slots.SlotState(None, 0, 0, 0)
    before = time.monotonic()
    writer.accepted()
    writer.connections(7)
    writer.busy()
    now = time.monotonic()
    reading = reader.read(now)
    assert before <= reading.busy_since <= now
    assert reader.since() == writer.since() == round(reading.busy_since * 1e9)
    assert (reading.connections, reading.accepted, reading.requests) == (7, 1, 0)
    writer.idle()
    assert reader.read(now) == slots.SlotState(None, 1, 7, 1)
    assert reader.since() == 0


def test_a_time_in_the_future_is_not_believed(page):
    """A worker cannot say that it has been busy since tomorrow."""
    _, reader, writer, _ = page
    writer.busy()
    assert reader.read(0.0).busy_since is None


def test_the_bell_rings_once(page):
    """Armed, it rings at the next request only; nothing rings unasked."""
    _, reader, writer, rings = page
    writer.busy()
    assert not rings
    reader.arm()
    writer.busy()
    writer.busy()
    assert rings == [1]


def test_a_worker_cannot_shrink_the_memory(page):
    """The size is sealed: reading a page that is gone would end the master by SIGBUS."""
    descriptor, *_ = page
    for size in (0, slots.SIZE, slots.SIZE + slots.STACKS + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_the_line_is_cut_and_printable(page):
    """What a worker is busy with: as much as fits, and nothing that a terminal would obey."""
    _, reader, writer, _ = page
    assert reader.line() == ""
    writer.show(slots.as_line(b"GET /a HTTP/1.1"))
    assert reader.line() == "GET /a HTTP/1.1"
    writer.show(slots.as_line(b"\x1b[2J" + b"x" * 9999))
    assert reader.line() == "?[2J" + "x" * (slots.LINE - 4)


def test_the_limit_is_told_once(page):
    """The request that reaches it, and none before or after."""
    _, _, writer, _ = page
    told = []
    writer.on_limit = lambda: told.append(1)
    writer.limit(3)
    for count in range(1, 7):
        writer.busy()
        writer.idle()
        assert len(told) == (count >= 3)
    writer.limit(7)
    assert len(told) == 1
    writer.limit(6)
    assert len(told) == 2  # it had answered as many before it was told


def test_stacks_are_read_from_where_they_were_asked_for(page):
    """Both sides share the file's position; a worker that writes without end meets the sealed size."""
    descriptor, reader, _, _ = page
    reader.expect_stacks()
    os.write(descriptor, b"first")
    assert reader.stacks() == "first"
    reader.expect_stacks()
    os.write(descriptor, b"two")
    assert reader.stacks() == "two"
    assert not reader.has_all_stacks()
    os.write(descriptor, b"\0")
    assert reader.has_all_stacks()
    assert reader.stacks() == "two"
    reader.expect_stacks()
    assert not reader.has_all_stacks()
    os.write(descriptor, b"x" * slots.STACKS)
    with pytest.raises(PermissionError):
        os.write(descriptor, b"x")
    assert set(reader.stacks()) == {"x"}
    assert len(reader.stacks()) <= slots.STACKS
    os.lseek(descriptor, 1 << 40, os.SEEK_SET)
    assert len(reader.stacks()) <= slots.STACKS


def test_activity_is_what_read_returns(page):
    """The short form for looks at all workers."""
    _, reader, writer, _ = page
    writer.busy()
    writer.idle()
    writer.busy()
    now = time.monotonic()
    reading = reader.read(now)
    assert reader.activity(now) == (reading.busy_since, reading.requests)
    assert reader.activity(0.0) == (None, 1)


def test_application_code_outside_a_request_is_busy(page):
    """It rings, is no request, and hides no request that runs already."""
    _, reader, writer, rings = page
    reader.arm()
    writer.show(slots.as_line(b"GET / HTTP/1.1"))
    with writer.occupied():
        assert reader.since()
        assert reader.line() == ""
    assert rings == [1]
    assert (reader.since(), reader.read(1e18).requests) == (0, 0)
    writer.busy(7)
    with writer.occupied():
        assert reader.since() == 7
    assert reader.since() == 7


def test_a_beat_shows_that_the_loop_turns(page):
    """One for each question."""
    _, reader, writer, _ = page
    assert reader.condition() == (0, 0)
    writer.beat()
    writer.beat()
    writer.connections(7)
    assert reader.condition() == (2, 7)
