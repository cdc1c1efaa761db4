"""Shared memory between a worker and the master."""

import fcntl
import os
import time

import pytest

from preforkd.ipc import slots


@pytest.fixture
def page():
    """A slot's two sides, and the wake-ups that were sent."""
    descriptor = slots.create("test")
    wakeups = []
    reader = slots.SlotReader(os.dup(descriptor))
    writer = slots.SlotWriter(descriptor, lambda: wakeups.append(1))
    yield descriptor, reader, writer, wakeups
    reader.close()
    writer.close()
    os.close(descriptor)


def test_what_a_worker_writes_the_master_reads(page):
    """Busy since, requests, connections, accepted."""
    _, reader, writer, _ = page
    assert reader.read(time.monotonic()) == slots.SlotState(None, 0, 0, 0)
    before = time.monotonic()
    writer.count_accepted()
    writer.set_connections(7)
    writer.set_busy()
    now = time.monotonic()
    reading = reader.read(now)
    assert before <= reading.busy_since <= now
    assert reader.busy_since_ns() == writer.busy_since_ns() == round(reading.busy_since * 1e9)
    assert (reading.connections, reading.accepted, reading.requests) == (7, 1, 0)
    writer.request_done()
    assert reader.read(now) == slots.SlotState(None, 1, 7, 1)
    assert reader.busy_since_ns() == 0


def test_a_time_in_the_future_is_not_believed(page):
    """A worker cannot have become busy in the future."""
    _, reader, writer, _ = page
    writer.set_busy()
    assert reader.read(0.0).busy_since is None


def test_a_requested_wakeup_is_sent_once(page):
    """A requested wake-up is sent at the next request only; none is sent without a request for it."""
    _, reader, writer, wakeups = page
    writer.set_busy()
    assert not wakeups
    reader.request_wakeup()
    writer.set_busy()
    writer.set_busy()
    assert wakeups == [1]


def test_a_worker_cannot_shrink_the_memory(page):
    """The size is sealed: reading a page that is gone would end the master by SIGBUS."""
    descriptor, *_ = page
    for size in (0, slots.SIZE, slots.SIZE + slots.STACKS + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_the_request_line_is_cut_and_printable(page):
    """The request line is truncated, and has no control characters."""
    _, reader, writer, _ = page
    assert reader.request_line() == ""
    writer.set_request_line(slots.padded_request_line(b"GET /a HTTP/1.1"))
    assert reader.request_line() == "GET /a HTTP/1.1"
    writer.set_request_line(slots.padded_request_line(b"\x1b[2J" + b"x" * 9999))
    assert reader.request_line() == "?[2J" + "x" * (slots.REQUEST_LINE_SIZE - 4)


def test_the_request_limit_is_reported_once(page):
    """By the request that reaches it, and by none before or after."""
    _, _, writer, _ = page
    calls = []
    writer.on_request_limit = lambda: calls.append(1)
    writer.set_request_limit(3)
    for count in range(1, 7):
        writer.set_busy()
        writer.request_done()
        assert len(calls) == (count >= 3)
    writer.set_request_limit(7)
    assert len(calls) == 1
    writer.set_request_limit(6)
    assert len(calls) == 2  # that many had been answered before


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
    """It is the short form for samples of all workers."""
    _, reader, writer, _ = page
    writer.set_busy()
    writer.request_done()
    writer.set_busy()
    now = time.monotonic()
    reading = reader.read(now)
    assert reader.activity(now) == (reading.busy_since, reading.requests)
    assert reader.activity(0.0) == (None, 1)


def test_application_code_outside_a_request_is_busy(page):
    """It sends the wake-up, counts no request, and leaves a running request's time unchanged."""
    _, reader, writer, wakeups = page
    reader.request_wakeup()
    writer.set_request_line(slots.padded_request_line(b"GET / HTTP/1.1"))
    with writer.busy_outside_request():
        assert reader.busy_since_ns()
        assert reader.request_line() == ""
    assert wakeups == [1]
    assert (reader.busy_since_ns(), reader.read(1e18).requests) == (0, 0)
    writer.set_busy(7)
    with writer.busy_outside_request():
        assert reader.busy_since_ns() == 7
    assert reader.busy_since_ns() == 7


def test_heartbeats_are_counted(page):
    """One for each message; the open connections are read with them."""
    _, reader, writer, _ = page
    assert reader.liveness() == (0, 0)
    writer.heartbeat()
    writer.heartbeat()
    writer.set_connections(7)
    assert reader.liveness() == (2, 7)
