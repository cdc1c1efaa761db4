"""Where the control socket is: the master and preforkctl agree."""

import os
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest

from preforkd.control import path
from preforkd.errors import SystemFailure


@contextmanager
def listening(*places):
    """Sockets at these paths on which somebody listens."""
    socks = []
    for place in places:
        Path(place).parent.mkdir(exist_ok=True, parents=True)
        socks.append(socket.socket(socket.AF_UNIX))
        socks[-1].bind(str(place))
        socks[-1].listen()
    yield
    for sock in socks:
        sock.close()


@pytest.fixture
def home(tmp_path, tmp_path_factory, monkeypatch):
    """A user's runtime directory, and a system without services and without other runs."""
    monkeypatch.setattr(path, "_SERVICES", str(tmp_path / "run"))
    monkeypatch.setattr(path, "_last_resort", lambda uid: str(tmp_path / f"last.{uid}"))
    home = tmp_path_factory.mktemp("h")  # a socket's path has at most 107 bytes
    monkeypatch.setattr(path, "_homes", lambda uid, environ: [str(home)])
    return home


def test_what_is_named_is_the_path(tmp_path):
    """The setting first, then $RUNTIME_DIRECTORY, the first of several; "off" is nowhere."""
    assert path.to_bind("off", {"RUNTIME_DIRECTORY": "/run/a"}) is None
    asked = str(tmp_path / "asked/s")
    assert path.to_bind(asked, {"RUNTIME_DIRECTORY": str(tmp_path)}) == asked
    assert (tmp_path / "asked").is_dir()
    several = {"RUNTIME_DIRECTORY": f"{tmp_path}/b:{tmp_path}/c"}
    assert path.to_bind("", several) == f"{tmp_path}/b/io.preforkd.Manager"
    assert path.running(several) == [f"{tmp_path}/b/io.preforkd.Manager"]


def test_a_service_that_is_named_is_never_another(home, tmp_path):
    """$RUNTIME_DIRECTORY of a service that does not run: its path alone, whoever else answers."""
    with listening(home / "preforkd" / path.NAME, tmp_path / "run/preforkd" / path.NAME):
        elsewhere = {"RUNTIME_DIRECTORY": str(tmp_path / "run/preforkd-shop")}
        assert path.running(elsewhere) == [f"{tmp_path}/run/preforkd-shop/{path.NAME}"]


def test_each_run_by_hand_has_a_socket_of_its_own(home):
    """With its pid in the name, where preforkctl finds those that live."""
    bound = path.to_bind("", {})
    assert bound == f"{home}/preforkd/{path.NAME}.{os.getpid()}"
    assert path.running({}) == []
    other = f"{home}/preforkd/{path.NAME}.{os.getpid() + 1}"
    with listening(bound, other):
        (home / "preforkd/notes").write_text("no socket of ours")
        assert path.running({}) == sorted([other, bound])
    assert path.running({}) == []


def test_what_a_killed_master_has_left_is_removed_by_the_next(home):
    """A socket whose master lives, or which somebody listens on, stays."""
    pid = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    stale, kept = (home / "preforkd" / f"{path.NAME}.{number}" for number in (pid, pid + 1))
    with listening(stale):
        pass
    with listening(kept):
        path.to_bind("", {})
        assert not stale.exists()
        assert kept.exists()


def test_a_user_without_a_runtime_directory_gets_a_socket(home, monkeypatch):
    """In a folder of his own, which nobody else may have made or can write to."""
    monkeypatch.setattr(path, "_homes", lambda uid, environ: [])
    bound = path.to_bind("", {})
    folder = Path(bound).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    with listening(bound):
        assert path.running({}) == [bound]
    folder.chmod(0o777)
    with pytest.raises(SystemFailure, match="not a directory that only this user can write to"):
        path.to_bind("", {})
    folder.chmod(0o700)
    folder.rename(f"{folder}.moved")
    folder.symlink_to(f"{folder}.moved")
    with pytest.raises(SystemFailure, match="not a directory"):
        path.to_bind("", {})


def test_the_services_are_roots(home, tmp_path, monkeypatch):
    """An ordinary user's preforkctl does not reach them unnamed."""
    service, shop = (f"{tmp_path}/run/preforkd{name}/{path.NAME}" for name in ("", "-shop"))
    with listening(service, shop):
        (tmp_path / "run/preforkd-down").mkdir()
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert path.running({}) == [service, shop]
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1000)
        assert path.running({}) == []
        assert path.of_service() == service
        assert path.of_service("shop") == shop
        assert path.instance_of(service) == ""
        assert path.instance_of(shop) == "shop"
        assert path.instance_of(f"{home}/preforkd/{path.NAME}") is None


def test_the_runtime_directory_of_another_user_is_not_ours(tmp_path, monkeypatch):
    """As sudo leaves it in the environment."""
    assert path._homes(os.getuid(), {"XDG_RUNTIME_DIR": str(tmp_path)})[0] == str(tmp_path)
    assert str(tmp_path) not in path._homes(os.getuid() + 1, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert path._homes(os.getuid(), {"XDG_RUNTIME_DIR": "/nowhere"})[:1] != ["/nowhere"]
