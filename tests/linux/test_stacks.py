"""Stacks on a signal."""

import os
import select
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
        while b"in <module>\n" not in data:
            piece = os.read(reader, 4096)
            assert piece, data
            data += piece
        assert b"in hang_with_the_lock" in data
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        os.close(reader)


BUSY = """
import os, select, signal, sys, threading
from preforkd.linux import stacks

def deeper(depth):
    return depth and deeper(depth - 1) + 1

def never_rests():
    while True:
        deeper(50)

def serves_the_last_request():
    print("now", flush=True)
    # As a worker's loop: what a signal handler is to do is done though it came just before the wait.
    while not select.select([sys.stdin, wakes], [], [])[0] == [sys.stdin]:
        os.read(wakes, 100)

for _ in range(3):
    threading.Thread(target=never_rests, daemon=True).start()
wakes, wake = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(wake)
stacks.write_on_signal(int(sys.argv[1]))
serves_the_last_request()
"""


def test_threads_that_run_meanwhile_are_written_safely():
    """Their stacks change while they are looked at: hundreds of times, and nothing crashes."""
    reader, writer = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(writer)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[writer],
    )
    os.close(writer)
    try:
        assert child.stdout.readline() == b"now\n"
        for _ in range(300):
            child.send_signal(stacks.SIGNAL)
            data = b""
            while data.count(b"(most recent call first)") < 4 or not data.endswith(stacks.END):
                assert select.select([reader], [], [], 20)[0], data
                piece = os.read(reader, 65536)
                assert piece, f"{data!r}: ended with {child.wait()}"
                data += piece
            assert b"in serves_the_last_request" in data
            assert data.count(b"in never_rests") >= 2
        child.stdin.close()
        assert child.wait() == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        os.close(reader)
