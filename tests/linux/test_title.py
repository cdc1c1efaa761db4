"""Process titles."""

import ctypes
import subprocess
import sys

import pytest

from preforkd.linux import title

CODE = """
import os, sys
from preforkd.linux.title import Title
title = Title()
title.set(sys.argv[1])
print(open("/proc/self/cmdline", "rb").read().rstrip(b"\\0").decode(), flush=True)
if os.fork() == 0:
    title.set("child")
    print(open("/proc/self/cmdline", "rb").read().rstrip(b"\\0").decode(), flush=True)
    os._exit(0)
os.wait()
print(open("/proc/self/cmdline", "rb").read().rstrip(b"\\0").decode())
"""


@pytest.mark.parametrize("text", ["preforkd: master", "x" * 5000])
def test_a_title_is_what_ps_shows(text):
    """It is cut to the room there is, a forked child has its own, the parent's stays."""
    command = [sys.executable, "-c", CODE, text]
    room = len("\0".join(command).encode())
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    assert shown[:3] == [text[:room], "child", text[:room]]


def test_what_is_shown_already_is_not_written_again(monkeypatch):
    """An equal text touches no memory; another one does."""
    buffer = ctypes.create_string_buffer(16)
    monkeypatch.setattr(title, "_area", lambda: (ctypes.addressof(buffer), 16))
    monkeypatch.setattr(title, "_name_process", lambda: None)
    shown = title.Title()
    shown.set("master")
    assert buffer.value == b"master"
    buffer.value = b"untouched"
    shown.set("master")
    assert buffer.value == b"untouched"
    shown.set("worker")
    assert buffer.value == b"worker"


def test_without_room_nothing_is_shown(monkeypatch):
    """The address of the command line is unknown: no title, and no error."""
    monkeypatch.setattr(title, "_area", lambda: (0, 0))
    title.Title().set("master")
