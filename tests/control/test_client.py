"""The client of preforkctl."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from preforkd.control.client import Client, NotRunningError
from preforkd.errors import ExitStatus


def test_nobody_there(tmp_path):
    """No file, or a stale one: not running, with a hint."""
    path = tmp_path / "s"
    for _ in range(2):
        with pytest.raises(NotRunningError) as caught:
            Client(str(path))
        assert caught.value.exit_status == ExitStatus.NOT_RUNNING
        assert "--socket" in caught.value.hint
        with socket.socket(socket.AF_UNIX) as stale:
            if not path.exists():
                stale.bind(str(path))


def test_a_master_that_ends_before_it_answers(tmp_path):
    """Is not taken for an answer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def hang_up():
            sock, _ = listener.accept()
            sock.recv(999)
            sock.sendall(b'{"parameters":')
            sock.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        client = Client(str(tmp_path / "s"))
        with pytest.raises(NotRunningError, match="exited before it answered"):
            client.call("GetStatus")
        client.close()
        thread.join()


MASTER = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print(flush=True)
listener.accept()[0].close()
print(flush=True)
sys.stdin.read()
"""


def test_a_master_that_only_hangs_up_has_not_ended(tmp_path):
    """Who waits for its end waits for its process."""
    path = str(tmp_path / "s")
    command = [sys.executable, "-c", MASTER, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as master:
        assert master.stdout.readline() == b"\n"
        client = Client(path)
        assert master.stdout.readline() == b"\n"
        waiting = threading.Thread(target=client.wait_for_end)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        master.stdin.close()
        waiting.join(20)
        assert not waiting.is_alive()
        client.close()


def test_where_its_process_cannot_be_seen_a_hangup_has_to_do(tmp_path, monkeypatch):
    """In a container, say."""

    def invisible(pid):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "pidfd_open", invisible)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        client = Client(str(tmp_path / "s"))
        waiting = threading.Thread(target=client.wait_for_end)
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        listener.accept()[0].close()
        waiting.join(20)
        assert not waiting.is_alive()
        client.close()
