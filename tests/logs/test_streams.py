"""Standard streams that are closed or not read."""

import contextlib
import os
import subprocess
import sys
import time

import pytest

from preforkd.logs.streams import write_with_timeout

CODE = """
import os, sys
from preforkd.logs.streams import open_closed
open_closed()
print("printed")
print("complained", file=sys.stderr)
places = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
inherited = all(os.get_inheritable(number) for number in range(3))
with open(sys.argv[1], "w") as file:
    file.write(" ".join([*places, str(inherited), str(sys.stdin.fileno())]))
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_become_dev_null(tmp_path, closed):
    """Whichever are closed; what is open stays as it is."""
    shell = f'exec "$@" {closed}'
    subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-c", CODE, str(tmp_path / "seen")],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    *places, inherited, number = (tmp_path / "seen").read_text().split()
    for mark, place in zip(("<&-", ">&-", "2>&-"), places, strict=True):
        if f" {mark}" in f" {closed}":
            assert place == "/dev/null"
        else:
            assert place == "/dev/null" or place.startswith("pipe:")
    assert (inherited, number) == ("True", "0")


def test_a_pipe_that_is_not_read():
    """Nothing is written that would block, and the timeout is observed."""
    reader, writer = os.pipe()
    assert write_with_timeout(writer, b"first", 0.0)
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 1000)
    os.set_blocking(writer, True)
    begun = time.monotonic()
    assert not write_with_timeout(writer, b"last", 0.1)
    assert time.monotonic() - begun >= 0.1
    assert os.read(reader, 5) == b"first"
    os.close(reader)
    os.close(writer)


def test_a_file_takes_it_in_one_piece(tmp_path):
    """However long it is."""
    with open(tmp_path / "file", "wb") as file:
        assert write_with_timeout(file.fileno(), b"x" * 100_000, 0.0)
    assert (tmp_path / "file").stat().st_size == 100_000
