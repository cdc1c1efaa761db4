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
    reader = slots.SlotReader(descriptor)
    writer = slots.SlotWriter(descriptor, lambda: rings.append(1))
    yield descriptor, reader, writer, rings
    reader.close()
    writer.close()
    os.close(descriptor)


def test_what_a_worker_writes_the_master_reads(page):
    """Busy since, requests, connections, accepted."""
    _, reader, writer, _ = page
    assert reader.read(time.monotonic()) == slots.Reading(None, 0, 0, 0)
    before = time.monotonic()
    writer.accepted()
    writer.connections(7)
    writer.busy()
    now = time.monotonic()
    reading = reader.read(now)
    assert before <= reading.busy_since <= now
    assert (reading.connections, reading.accepted, reading.requests) == (7, 1, 0)
    writer.idle()
    assert reader.read(now) == slots.Reading(None, 1, 7, 1)


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
    for size in (0, slots.SIZE * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
