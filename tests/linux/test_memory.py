"""Being told when memory is short."""

import os
import select

import pytest

from preforkd.linux.memory import PressureWatch, trim


def readable(watch):
    """Tell whether the watch has something to say."""
    return bool(select.select([watch], [], [], 0)[0])


def test_a_fifo_tells_by_data(tmp_path):
    """Readable until it was taken note of; what systemd wants written is written."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    environ = {"MEMORY_PRESSURE_WATCH": str(path), "MEMORY_PRESSURE_WRITE": "c29tZQA="}
    watch = PressureWatch.from_environment(environ)
    assert readable(watch)  # our own order comes back through a FIFO
    watch.take()
    assert not readable(watch)
    other = os.open(path, os.O_WRONLY)
    os.write(other, b"x")
    assert readable(watch)
    os.close(other)
    watch.close()


@pytest.mark.skipif(not os.access("/proc/pressure/memory", os.W_OK), reason="no PSI to write to")
def test_the_kernels_file_takes_the_order():
    """A threshold of 1.9 of 2 seconds is accepted, and not reached."""
    watch = PressureWatch("/proc/pressure/memory", b"some 1900000 2000000\0")
    assert not readable(watch)
    watch.close()


def test_no_watch_is_none(tmp_path):
    """Not offered, switched off, or not to be had."""
    for path in ("", "/dev/null", str(tmp_path / "gone")):
        assert PressureWatch.from_environment({"MEMORY_PRESSURE_WATCH": path}) is None


def test_trimming_collects_garbage():
    """A cycle is gone afterwards."""
    import gc
    import weakref

    class Node:
        pass

    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    gc.disable()
    del node
    assert gone() is not None
    trim()
    gc.enable()
    assert gone() is None
