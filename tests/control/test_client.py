"""The client of preforkctl."""

import socket
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
        with pytest.raises(NotRunningError, match="ended before it answered"):
            client.call("GetStatus")
        client.close()
        thread.join()
