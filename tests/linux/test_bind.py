"""Sockets of our own."""

import os
import socket

import pytest

from preforkd.errors import SystemFailure
from preforkd.linux import bind


def port_of(sock):
    """Return the port that a socket has."""
    return sock.getsockname()[1]


@pytest.fixture
def port():
    """A port that is free."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return port_of(sock)


def test_a_listener_is_ready_for_workers(port):
    """Listening, non-blocking, close-on-exec."""
    (sock,) = bind.bind_tcp("127.0.0.1", port, 10)
    with sock, socket.create_connection(("127.0.0.1", port)):
        assert not os.get_blocking(sock.fileno())
        assert not os.get_inheritable(sock.fileno())
        sock.accept()[0].close()


def test_no_host_is_every_address(port):
    """IPv4 and IPv6 reach the same socket."""
    (sock,) = bind.bind_tcp(None, port, 10)
    with sock:
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port)).close()


def test_a_port_in_use_is_one_clear_line(port):
    """What, why, and what to do."""
    with bind.bind_tcp("127.0.0.1", port, 1)[0], pytest.raises(SystemFailure) as caught:
        bind.bind_tcp("127.0.0.1", port, 1)
    assert caught.value.message == f"127.0.0.1:{port} cannot be bound: Address already in use"
    assert "ss -ltnp" in caught.value.hint


def test_a_host_that_is_unknown_or_elsewhere():
    """Names that do not resolve, and addresses of other machines."""
    with pytest.raises(SystemFailure, match="unknown host"):
        bind.bind_tcp("no.such.host.invalid", 80, 1)
    with pytest.raises(SystemFailure, match="8000 cannot be bound"):
        bind.bind_tcp("192.0.2.1", 8000, 1)


def test_a_unix_socket_has_its_mode_and_goes(tmp_path):
    """Mode as asked whatever the umask; closing removes the file."""
    path = tmp_path / "s"
    before = os.umask(0o077)
    try:
        sock = bind.bind_unix(str(path), 0o660, str(os.getuid()), str(os.getgid()), 5)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o660
    assert sock.getsockname() == str(path)
    bind.close_unix(sock)
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_a_live_one_refused(tmp_path):
    """A file is replaced only if no process listens on its socket."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    live = bind.bind_unix(path, 0o666, "", "", 5)
    with pytest.raises(SystemFailure, match="another process listens there"):
        bind.bind_unix(path, 0o666, "", "", 5)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    bind.close_unix(live)


def test_a_file_that_is_not_ours_is_left(tmp_path):
    """No socket: refused, and untouched. Another's socket at our path: not removed at the end."""
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(SystemFailure, match="not a socket exists there"):
        bind.bind_unix(str(path), 0o666, "", "", 5)
    assert path.read_text() == "precious"
    path.unlink()
    ours = bind.bind_unix(str(path), 0o666, "", "", 5)
    path.unlink()
    theirs = bind.bind_unix(str(path), 0o666, "", "", 5)
    bind.close_unix(ours)
    assert path.exists()
    bind.close_unix(theirs)


def test_what_cannot_be_bound_leaves_nothing(tmp_path):
    """A missing directory, an unknown owner or group: a clear line and no file."""
    with pytest.raises(SystemFailure, match="No such file") as caught:
        bind.bind_unix(str(tmp_path / "no/s"), 0o666, "", "", 5)
    assert "make the directory" in caught.value.hint
    with pytest.raises(SystemFailure, match="unknown user 'nobody-at-all'"):
        bind.bind_unix(str(tmp_path / "s"), 0o666, "nobody-at-all", "", 5)
    with pytest.raises(SystemFailure, match="unknown group 'nobody-at-all'"):
        bind.bind_unix(str(tmp_path / "s"), 0o666, "", "nobody-at-all", 5)
    assert list(tmp_path.iterdir()) == []


def test_the_access_is_that_of_the_socket_whatever_lies_at_its_path(tmp_path):
    """A link, a file or another socket that replaced the file keeps its mode and owner."""
    path, victim = tmp_path / "s", tmp_path / "victim"
    sock = bind.bind_unix(str(path), 0o660, "", "", 5)
    bind.set_access(sock, 0o600, "", "")
    assert path.stat().st_mode & 0o777 == 0o600
    victim.write_text("precious")
    victim.chmod(0o640)
    path.rename(tmp_path / "moved")
    path.symlink_to(victim)
    with pytest.raises(OSError, match="another file"):
        bind.set_access(sock, 0o777, "", "")
    path.unlink()
    path.hardlink_to(victim)
    with pytest.raises(OSError, match="another file"):
        bind.set_members(sock, 0o777, "")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        path.chmod(0o600)
        with pytest.raises(OSError, match="another file"):
            bind.set_access(sock, 0o777, "", "")
        assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    with pytest.raises(FileNotFoundError):
        bind.set_access(sock, 0o777, "", "")
    assert victim.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "moved").stat().st_mode & 0o777 == 0o600
    sock.close()


def test_a_second_name_of_the_file_is_not_trusted(tmp_path):
    """A hard link to another socket of the same user: where the file was not seen before."""
    path, other = tmp_path / "s", tmp_path / "other"
    with socket.socket(socket.AF_UNIX) as victim, socket.socket(socket.AF_UNIX) as sock:
        victim.bind(str(other))
        sock.bind(str(path))
        path.unlink()
        path.hardlink_to(other)
        before = other.stat().st_mode
        with pytest.raises(OSError, match="another file"):
            bind.set_access(sock, 0o777, "", "")
        assert other.stat().st_mode == before


def test_without_proc_the_path_names_the_file(tmp_path, monkeypatch):
    """It has been looked at, and is changed all the same."""
    monkeypatch.setattr(os.path, "exists", lambda path: not str(path).startswith("/proc"))
    path = tmp_path / "s"
    sock = bind.bind_unix(str(path), 0o640, "", "", 5)
    assert path.stat().st_mode & 0o777 == 0o640
    bind.close_unix(sock)
