"""Sockets from systemd, in a process that was started as systemd starts one."""

import json
import os
import socket
import stat
import subprocess
import sys

import pytest

from preforkd.errors import SystemFailure
from preforkd.linux.socket_activation import (
    inherited_listeners,
    restore_blocking,
    serves_path,
    serves_tcp,
    set_nonblocking,
)

CODE = """
import json, os
from preforkd.linux import socket_activation
from preforkd.errors import SystemFailure
try:
    passed = socket_activation.inherited_listeners()
except SystemFailure as error:
    print(json.dumps({"error": error.message}))
    raise SystemExit
print(json.dumps({
    "good": [[i.name, i.address, os.get_inheritable(i.sock.fileno()), i.sock.getblocking()] for i in passed.good],
    "bad": [[r.name, r.fd, r.reason, r.file] for r in passed.bad],
    "foreign": passed.foreign,
}))
"""
# LISTEN_PID must name the process itself: the shell sets it and becomes the program.
SHELL = 'export LISTEN_PID=$$; exec "$0" -c "$1"'


def inherit(socks, names, shell=SHELL, **more):
    """Return the output of a process that inherits these files as systemd passes them."""
    saved = {}
    try:
        for number in range(3, 3 + len(socks)):
            saved[number] = os.dup(number) if os.path.exists(f"/proc/self/fd/{number}") else None
        copies = [os.dup(sock.fileno()) for sock in socks]

        def place():
            high = [os.dup2(copy, 200 + index) for index, copy in enumerate(copies)]
            for index, copy in enumerate(high):
                os.dup2(copy, 3 + index)

        environ = {**os.environ, "LISTEN_FDS": str(len(socks)), "LISTEN_FDNAMES": ":".join(names)}
        environ |= more
        done = subprocess.run(
            ["sh", "-c", shell, sys.executable, CODE],
            env=environ,
            preexec_fn=place,
            close_fds=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    finally:
        for copy in copies:
            os.close(copy)
        for descriptor in saved.values():
            if descriptor is not None:
                os.close(descriptor)


def test_listeners_are_known_by_name_and_the_rest_is_refused(tmp_path):
    """Four kinds of listeners are good; datagram, connection, and idle sockets are refused."""
    v4 = socket.create_server(("127.0.0.1", 0))
    v6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "s"))
    unix.listen()
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    idle = socket.socket()
    socks = [v4, v6, unix, datagram, idle]
    said = inherit(socks, ["a", "b", "c", "d", "e"])
    assert said["good"] == [
        ["a", f"127.0.0.1:{v4.getsockname()[1]}", False, True],
        ["b", f"[::1]:{v6.getsockname()[1]}", False, True],
        ["c", f"unix:{tmp_path}/s", False, True],
    ]
    (d, d_fd, d_reason, _), (e, _, e_reason, _) = said["bad"]
    assert (d, d_fd, e) == ("d", 6, "e")
    assert "ListenStream= instead of ListenDatagram=" in d_reason
    assert "Accept=no" in e_reason
    for sock in socks:
        sock.close()


def test_packet_sockets_and_files_are_refused(tmp_path):
    """A sequential-packet socket gets a hint; a regular file (OpenFile=) is marked as such."""
    packets = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    packets.bind(str(tmp_path / "s"))
    packets.listen()
    os.mkfifo(tmp_path / "fifo")
    with (
        packets,
        (tmp_path / "f").open("w") as file,
        open(tmp_path / "fifo", "rb+", buffering=0) as fifo,
    ):
        said = inherit([packets, file, fifo], ["a", "b", "c"])
    (_, _, reason, *_), (_, _, other, _), (_, _, third, _) = said["bad"]
    assert "ListenStream= instead of ListenSequentialPacket=" in reason
    assert "it is not a socket" in other
    assert "it is not a socket" in third
    assert [is_file for *_, is_file in said["bad"]] == [False, True, False]


@pytest.mark.parametrize("pid", ["1", "", "x"])
def test_sockets_for_another_process_are_not_taken(pid):
    """The number of descriptors, the process that they are for, and this process."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        said = inherit([sock], ["http"], 'echo $$ >&2; exec "$0" -c "$1"', LISTEN_PID=pid)
    assert said["good"] == []
    assert said["foreign"].startswith("LISTEN_FDS=1 is for ")
    assert f"process {pid} (LISTEN_PID)" in said["foreign"] or not pid
    assert "this is process " in said["foreign"]


@pytest.mark.parametrize(
    "variables",
    [
        {"LISTEN_FDS": "one"},
        {"LISTEN_FDS": "-1"},
        {"LISTEN_FDS": "1.0"},
        {"LISTEN_FDS": "9" * 30},
        {"LISTEN_FDS": "900"},
        {"LISTEN_FDNAMES": "a:b"},
    ],
)
def test_variables_that_contradict_what_is_there_are_an_error(variables):
    """No number, more than are open, other names: the variables are in the message."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        said = inherit([sock], ["http"], **variables)
    for name, value in variables.items():
        assert f"{name}=" in said["error"]
        assert value in said["error"]


def test_without_names_all_descriptors_have_the_same():
    """The name is sd_listen_fds_with_names(3)'s; an empty name is one as well."""
    unset = 'unset LISTEN_FDNAMES; export LISTEN_PID=$$; exec "$0" -c "$1"'
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as two,
    ):
        assert [name for name, *_ in inherit([one, two], [], unset)["good"]] == ["unknown"] * 2
        assert [name for name, *_ in inherit([one, two], ["a", ""])["good"]] == ["a", ""]


@pytest.mark.parametrize(
    ("mode", "inode", "taken"),
    [(stat.S_IFREG | 0o700, 7, True), (stat.S_IFREG | 0o700, 8, False), (0o600, 8, True)],
)
def test_descriptors_of_another_process_are_reported(mode, inode, taken, monkeypatch):
    """By the inode of the own pidfd ($LISTEN_PIDFDID), which has no meaning before Linux 6.9: it has no type."""
    own = os.pidfd_open(os.getpid())
    os.close(own)
    fstat = os.fstat
    faked = os.stat_result((mode, inode, *(0,) * 8))
    monkeypatch.setattr(os, "fstat", lambda fd: faked if fd == own else fstat(fd))
    variables = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_PIDFDID": "7"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LISTEN_FDNAMES", "a:b")  # read after the identity
    if taken:
        with pytest.raises(SystemFailure, match="2 names for 1 descriptors"):
            inherited_listeners()
        return
    assert inherited_listeners().foreign.startswith(
        "LISTEN_FDS=1 is for another process of this pid (LISTEN_PIDFDID=7)"
    )


def test_the_own_identity_is_recognised():
    """As systemd passes it: the inode of a pidfd of the service's process."""
    code = "import os; print(os.fstat(os.pidfd_open(os.getppid())).st_ino)"
    identity = f'export LISTEN_PID=$$ LISTEN_PIDFDID=$("$0" -c "{code}"); '
    with socket.create_server(("127.0.0.1", 0)) as sock:
        passed = inherit([sock], ["http"], identity + 'exec "$0" -c "$1"')
    assert [name for name, *_ in passed["good"]] == ["http"]


def test_an_invalid_number_is_an_error_for_any_process():
    """Also where no pid is named, which would make a number another process's."""
    said = inherit([], [], 'exec "$0" -c "$1"', LISTEN_FDS="one")
    assert said == {"error": "LISTEN_FDS='one' is not a number of sockets"}


@pytest.mark.parametrize("number", ["", "0"])
def test_nothing_is_passed(number):
    """An empty variable, or none of them, is no error."""
    assert inherit([], [], LISTEN_FDS=number) == {"good": [], "bad": [], "foreign": ""}


def test_which_listener_serves_an_address(tmp_path):
    """The address itself, every address of its family, both families of a dual-stack listener."""
    with socket.create_server(("127.0.0.1", 0)) as v4:
        port = v4.getsockname()[1]
        assert serves_tcp(v4, "127.0.0.1", port)
        assert serves_tcp(v4, "localhost", port)
        assert not serves_tcp(v4, "127.0.0.2", port)
        assert not serves_tcp(v4, "127.0.0.1", port + 1)
        assert not serves_tcp(v4, None, port)
        assert not serves_tcp(v4, "no.such.host.invalid", port)
        assert not serves_path(v4, "/run/x")
    with socket.create_server(("0.0.0.0", 0)) as v4:
        port = v4.getsockname()[1]
        assert serves_tcp(v4, "127.0.0.2", port)
        assert serves_tcp(v4, None, port)
        assert not serves_tcp(v4, "::1", port)
    for dual in (True, False):
        six = socket.AF_INET6
        with socket.create_server(("::", 0), family=six, dualstack_ipv6=dual) as v6:
            port = v6.getsockname()[1]
            assert serves_tcp(v6, "::1", port)
            assert serves_tcp(v6, "127.0.0.1", port) == dual
    with socket.create_server(str(tmp_path / "s"), family=socket.AF_UNIX) as unix:
        (tmp_path / "link").symlink_to(tmp_path)
        assert serves_path(unix, str(tmp_path / "link/s"))
        assert not serves_path(unix, str(tmp_path / "t"))
        assert not serves_tcp(unix, None, 80)


def test_the_blocking_mode_is_put_back():
    """It is shared with systemd's own descriptor of the socket."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        twin = os.dup(sock.fileno())
        assert set_nonblocking(sock)
        assert not os.get_blocking(twin)
        assert not set_nonblocking(sock)
        restore_blocking(sock)
        assert os.get_blocking(twin)
        os.close(twin)
