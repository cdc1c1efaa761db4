"""Reading a file of any type and size."""

import os
import threading

import pytest

from preforkd.config.files import read_bounded


def test_no_more_than_the_limit_is_read(tmp_path):
    """A file shorter than it, one as long, one longer, one without an end."""
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100_000)
    assert read_bounded(str(path), 100_001) == b"x" * 100_000
    assert read_bounded(str(path), 100_000) == b"x" * 100_000
    assert read_bounded(str(path), 99_999) == b"x" * 99_999
    assert read_bounded("/dev/zero", 200_000) == bytes(200_000)
    before = os.listdir("/proc/self/fd")
    assert read_bounded("/dev/null", 10) == b""
    with pytest.raises(IsADirectoryError):
        read_bounded(str(tmp_path), 10)
    assert os.listdir("/proc/self/fd") == before


def test_a_fifo_without_an_end_times_out(tmp_path):
    """Without a writer, or with one that never closes it: an error, not an empty or partial file."""
    path = str(tmp_path / "f")
    os.mkfifo(path)
    with pytest.raises(TimeoutError, match=r"no end of file within 0\.05 s"):
        read_bounded(path, 100, timeout=0.05)
    holder = os.open(path, os.O_RDWR)
    try:
        os.write(holder, b"half")
        with pytest.raises(TimeoutError):
            read_bounded(path, 100, timeout=0.05)
    finally:
        os.close(holder)


def test_a_fifo_is_read_to_its_end(tmp_path):
    """In pieces, as a shell's <(command) writes them."""
    path = str(tmp_path / "f")
    os.mkfifo(path)

    def write():
        with open(path, "wb", buffering=0) as file:
            file.write(b"one ")
            file.write(b"two")

    writer = threading.Thread(target=write)
    writer.start()
    assert read_bounded(path, 100) == b"one two"
    writer.join()
