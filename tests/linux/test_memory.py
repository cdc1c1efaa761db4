"""The memory of a process, and notification of memory pressure."""

import os
import select

import pytest

from preforkd.linux import memory
from preforkd.linux.memory import PressureWatch, trim, usage


def readable(watch):
    """Return whether the watch is readable."""
    return bool(select.select([watch], [], [], 0)[0])


def test_a_fifo_notifies_by_data(tmp_path):
    """Readable until it was taken note of; what systemd wants written is written."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    environ = {"MEMORY_PRESSURE_WATCH": str(path), "MEMORY_PRESSURE_WRITE": "c29tZQA="}
    watch = PressureWatch.from_environment(environ)
    assert readable(watch)  # our own order comes back through a FIFO
    watch.acknowledge()
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


def in_a_child(function):
    """Run this in a forked child; return the child's pid and a descriptor that lets it end."""
    read, write = os.pipe()
    ready_read, ready_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        kept = function()
        os.write(ready_write, b"x")
        os.read(read, 1)
        del kept
        os._exit(0)
    os.close(read)
    os.read(ready_read, 1)
    os.close(ready_read)
    os.close(ready_write)
    return child, write


def test_what_a_process_has_to_itself_and_what_it_shares():
    """A child shares its parent's heap; what it makes or writes to is its own."""
    heap = bytearray(b"x" * (32 << 20))
    child, end = in_a_child(lambda: bytearray(b"y" * (16 << 20)))
    try:
        own, here = usage(child), usage()
    finally:
        os.close(end)
        os.waitpid(child, 0)
    # How much of the rest the child has written to depends on what ran in this process before.
    assert 16 << 20 <= own.private <= own.anonymous - len(heap)
    assert own.shared >= len(heap)
    assert own.anonymous >= 48 << 20  # as if it had not been forked
    assert own.private < own.pss < own.rss
    assert own.pss_files is None or 0 < own.pss_files < own.rss
    assert here.shared >= len(heap)


def test_a_process_that_is_gone_or_a_zombie():
    """Both have no memory; the first has no number either."""
    child, end = in_a_child(lambda: None)
    os.close(end)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessLookupError):
        usage(child)
    os.waitpid(child, 0)
    with pytest.raises(ProcessLookupError, match=f"no process {child}"):
        usage(child)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_users_process_is_not_read():
    """proc(5): it needs the right to trace the process."""
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            usage(os.getppid())
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_proc_no_process_is_taken_for_exited(monkeypatch):
    """The file is missing, but the process may run: another error is raised."""

    def refuse(path, *_arguments):
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(memory, "open", refuse, raising=False)
    monkeypatch.setattr(os.path, "exists", lambda _path: False)
    with pytest.raises(FileNotFoundError) as caught:
        usage(os.getpid())
    assert type(caught.value) is FileNotFoundError
