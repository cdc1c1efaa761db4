"""Stacks on a signal."""

import os
import subprocess
import sys

from preforkd.linux import stacks

HANGS = """
import ctypes, os, sys
from preforkd.linux import stacks

def hang_with_the_lock():
    # PyDLL keeps the interpreter's lock while C runs.
    print("now", flush=True)
    ctypes.PyDLL(None).sleep(60)

stacks.write_on_signal(int(sys.argv[1]))
hang_with_the_lock()
"""


def test_stacks_are_written_even_while_the_interpreter_is_locked():
    """A call into C that keeps the GIL does not hide where it was called."""
    reader, writer = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(writer)], stdout=subprocess.PIPE, pass_fds=[writer]
    )
    os.close(writer)
    try:
        assert child.stdout.readline() == b"now\n"
        child.send_signal(stacks.SIGNAL)
        data = b""
        while b"<string>" not in data or not data.endswith(b"<module>\n"):
            piece = os.read(reader, 4096)
            assert piece, data
            data += piece
        assert b"in hang_with_the_lock" in data
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        os.close(reader)
