"""Sockets from systemd, in a process that was started as systemd starts one."""

import json
import os
import socket
import subprocess
import sys

from preforkd.linux.inherit import restore_blocking, set_nonblocking

CODE = """
import json, os
from preforkd.linux import inherit
good, bad = inherit.inherited_listeners()
print(json.dumps({
    "good": [[i.name, i.address, os.get_inheritable(i.sock.fileno()), i.sock.getblocking()] for i in good],
    "bad": [[r.name, r.fd, r.reason] for r in bad],
}))
"""
# LISTEN_PID must name the process itself: the shell sets it and becomes the program.
SHELL = 'export LISTEN_PID=$$; exec "$0" -c "$1"'


def inherit(socks, names):
    """Return what a process says that inherits these sockets as systemd passes them."""
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
        done = subprocess.run(
            ["sh", "-c", SHELL, sys.executable, CODE],
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
    (d, d_fd, d_reason), (e, _, e_reason) = said["bad"]
    assert (d, d_fd, e) == ("d", 6, "e")
    assert "ListenStream= instead of ListenDatagram=" in d_reason
    assert "Accept=no" in e_reason
    for sock in socks:
        sock.close()


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
