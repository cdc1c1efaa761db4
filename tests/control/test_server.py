"""The control socket, by clients of every kind."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from preforkd.control import server
from preforkd.control.client import Client, NotAllowedError, NotRunningError, ReloadFailedError
from preforkd.control.interface import GetStatus, Manager
from preforkd.control.permissions import Peer
from preforkd.errors import ExitStatus, SystemFailure
from preforkd.ipc import scm_rights
from tests.control import backend
from tests.control.backend import BAD, VIEW, serving, stuck_socket

FLOOD = Path(__file__).parents[1] / "flood.py"


@pytest.fixture
def path(tmp_path):
    """Where the socket is."""
    return tmp_path / "io.preforkd.Manager"


def call(path, method, **parameters):
    """Return the answer to one call."""
    client = Client(str(path))
    try:
        return client.call(method, **parameters)
    finally:
        client.close()


def raw(path, data, patience=10):
    """Return what comes back for these bytes until the server hangs up or answers."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience)
        sock.connect(str(path))
        sock.sendall(data)
        return sock.recv(1 << 20)


def test_status_reload_and_stop(path):
    """The view as declared, the answer to a reload, and the wish to stop."""
    with serving(path) as backend:
        service = call(path, "GetStatus")["service"]
        assert service["status"] == "2 of 2 workers ready, 1 busy, generation 3"
        assert service["workers"][0]["requests"] == 10401
        assert call(path, "Reload", fresh=True) == {
            "generation": 4,
            "message": "generation 4 is serving",
            "live": ["workers"],
            "restart": ["log.target"],
        }
        assert backend.fresh
        call(path, "Stop", quick=False)
        assert backend.stopped == [False]
    assert not path.exists()


def test_memory_by_itself_and_in_the_status_when_asked_for(path):
    """GetStatus stays cheap for those who do not ask."""
    with serving(path):
        memory = call(path, "GetMemory")["memory"]
        assert [process["role"] for process in memory["processes"]] == [
            "worker",
            "zygote",
            "master",
        ]
        assert (memory["processes"][0]["growth"], memory["pss"]) == (1 << 20, 66 << 20)
        assert call(path, "GetStatus")["service"].get("memory") is None
        assert call(path, "GetStatus", memory=False)["service"].get("memory") is None
        assert call(path, "GetStatus", memory=True)["service"]["memory"] == memory


def test_a_reload_that_fails_says_who_has_to_act(path):
    """Reason, evidence and hint arrive; the exit status is by blame."""
    with serving(path) as backend:
        backend.answer = BAD
        with pytest.raises(ReloadFailedError, match="it broke") as caught:
            call(path, "Reload", fresh=False)
    assert caught.value.exit_status == ExitStatus.APPLICATION
    assert (caught.value.detail, caught.value.hint) == ("Traceback", "mend it")


def test_strangers_may_look_and_not_command(path, monkeypatch):
    """The decision is by who asks, not by the file's mode."""
    from preforkd.control import interface

    monkeypatch.setattr(interface, "may_command", lambda peer, group: False)
    with serving(path) as backend:
        assert call(path, "GetStatus")
        for method, parameters in (("Reload", {"fresh": False}), ("Stop", {"quick": True})):
            with pytest.raises(NotAllowedError, match="only to root"):
                call(path, method, **parameters)
        assert not backend.stopped


def test_the_interface_describes_itself(path):
    """What varlinkctl introspect asks for."""
    with serving(path):
        request = {
            "method": "org.varlink.service.GetInterfaceDescription",
            "parameters": {"interface": "io.preforkd.Manager"},
        }
        answer = json.loads(raw(path, json.dumps(request).encode() + b"\0")[:-1])
        text = answer["parameters"]["description"]
        for part in (
            "method GetStatus(memory: ?bool)",
            "method Reload(fresh: bool)",
            "error ReloadFailed",
        ):
            assert part in text
        info = json.loads(raw(path, b'{"method":"org.varlink.service.GetInfo"}\0')[:-1])
        assert "io.preforkd.Manager" in info["parameters"]["interfaces"]


@pytest.mark.parametrize(
    "data",
    [
        b"[]\0",
        b'{"method": 3}\0',
        b'{"method": "io.preforkd.Manager.Nothing"}\0',
        b'{"method": "io.preforkd.Manager.__init__"}\0',
        b'{"method": "io.preforkd.Manager.Reload", "parameters": {"fresh": "x"}}\0',
    ],
)
def test_nonsense_is_answered_or_ignored(path, data):
    """And the next client is served."""
    with serving(path):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(10)
            sock.recv(65536)
        assert call(path, "GetStatus")


def test_a_client_that_says_too_much_is_cut_off(path):
    """A request without an end does not fill the master's memory."""
    with serving(path), pytest.raises((BrokenPipeError, ConnectionResetError, AssertionError)):
        assert raw(path, b"x" * (10 << 20))


def test_a_client_that_does_not_read_is_cut_off(path, caplog, monkeypatch):
    """It waits as long as we are patient, and no answers gather; that is said once."""
    monkeypatch.setattr(server, "IDLE_TIMEOUT", 0.3)
    request = b'{"method":"org.varlink.service.GetInfo"}\0'
    with serving(path):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(str(path))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                while True:
                    sock.sendall(request * 100)
        assert call(path, "GetStatus")
    assert [record.message for record in caplog.records] == [
        "control socket: client does not read its answer; connection closed"
    ]


def read_answers(sock, number):
    """Return so many answers, and that nothing else has come with them."""
    data = b""
    while data.count(b"\0") < number:
        piece = sock.recv(1 << 20)
        assert piece
        data += piece
    *answers, rest = data.split(b"\0")
    assert rest == b""
    return [json.loads(answer) for answer in answers]


def test_answers_come_in_the_order_of_the_calls(path):
    """Also where many were sent ahead and the first takes long; what is asked oneway has none."""
    reload = b'{"method":"io.preforkd.Manager.Reload","parameters":{"fresh":true}}\0'
    scale = b'{"method":"io.preforkd.Manager.Scale","oneway":true}\0'
    info = b'{"method":"org.varlink.service.GetInfo"}\0'
    with serving(path) as backend, socket.socket(socket.AF_UNIX) as sock:
        backend.waiting = []
        sock.settimeout(10)
        sock.connect(str(path))
        sock.sendall(reload + scale + info * 3 + b'{"method":"io.preforkd.')
        assert call(path, "GetStatus")
        backend.call(backend.release)
        first, *others = read_answers(sock, 4)
        assert first["parameters"]["message"] == "generation 4 is serving"
        assert all("interfaces" in answer["parameters"] for answer in others)
        sock.sendall(b'Manager.GetMemory"}\0')
        assert "memory" in read_answers(sock, 1)[0]["parameters"]
        assert backend.scaled is None


def test_a_client_that_has_said_all_gets_its_answers(path):
    """It has closed its half, as nc -N does; then we hang up."""
    with serving(path), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        sock.sendall(b'{"method":"org.varlink.service.GetInfo"}\0' * 3 + b'{"meth')
        sock.shutdown(socket.SHUT_WR)
        assert len(read_answers(sock, 3)) == 3
        assert sock.recv(99) == b""


def test_an_answer_larger_than_a_socket_takes_arrives(path, monkeypatch):
    """In pieces, as the client reads it; others are answered meanwhile."""
    problem = "x" * (4 << 20)
    monkeypatch.setattr(backend, "VIEW", replace(backend.VIEW, problems=[problem]))
    with serving(path), socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        sock.sendall(b'{"method":"io.preforkd.Manager.GetStatus"}\0')
        assert call(path, "GetMemory")
        assert read_answers(sock, 1)[0]["parameters"]["service"]["problems"] == [problem]


def test_the_largest_request_and_one_that_is_larger(path):
    """A request may have so many bytes; more are too much, however they arrive."""
    text = b'{"method":"org.varlink.service.GetInfo"'
    largest = text + b" " * (server.MESSAGE - len(text) - 1) + b"}"
    assert len(largest) == server.MESSAGE
    with serving(path):
        assert b"preforkd" in raw(path, largest + b"\0")
        assert raw(path, b" " + largest + b"\0") == b""


def test_an_answer_on_its_way_goes_out_before_the_end(path, monkeypatch):
    """A server that closes waits for those who read, and not for those who do not."""
    problem = "x" * (4 << 20)
    monkeypatch.setattr(backend, "VIEW", replace(backend.VIEW, problems=[problem]))

    def connect(sock):
        sock.connect(str(path))
        sock.sendall(b'{"method":"io.preforkd.Manager.GetStatus"}\0')
        sock.recv(1, socket.MSG_PEEK)

    monkeypatch.setattr(server, "_CLOSE_TIMEOUT", 9.0)
    with socket.socket(socket.AF_UNIX) as reads:
        with serving(path) as service:
            connect(reads)
            taken = []
            reader = threading.Thread(target=lambda: taken.extend(read_answers(reads, 1)))
            service.call(reader.start)
        reader.join()
        assert taken[0]["parameters"]["service"]["problems"] == [problem]
    monkeypatch.setattr(server, "_CLOSE_TIMEOUT", 0.2)
    with socket.socket(socket.AF_UNIX) as silent, serving(path):
        connect(silent)


def test_a_client_that_asks_without_end_keeps_nobody_waiting(path):
    """It asks faster than it can be answered; others are answered meanwhile."""
    with serving(path):
        command = [sys.executable, FLOOD, str(path), "org.varlink.service.GetInfo"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as flood:
            try:
                assert flood.stdout.readline() == b"\n"
                for _ in range(20):
                    assert raw(path, b'{"method":"org.varlink.service.GetInfo"}\0', patience=60)
                assert flood.poll() is None
            finally:
                flood.kill()


def test_those_who_may_only_look_have_a_ration(path, monkeypatch):
    """What goes beyond waits for the next second, and who may command does not wait with them."""
    monkeypatch.setattr(server, "READS", 4)
    command = [False, True]
    monkeypatch.setattr(server, "may_command", lambda peer, group: command.pop(0))
    info = b'{"method":"org.varlink.service.GetInfo"}\0'
    with (
        serving(path),
        socket.socket(socket.AF_UNIX) as looks,
        socket.socket(socket.AF_UNIX) as own,
    ):
        for sock in (looks, own):
            sock.settimeout(20)
            sock.connect(str(path))
            sock.sendall(info)
            assert len(read_answers(sock, 1)) == 1
        began = time.monotonic()
        looks.sendall(info * 12)
        own.sendall(info * 500)
        assert len(read_answers(own, 500)) == 500
        # Four in each second: there is one in the midst of them that has passed from end to end.
        assert len(read_answers(looks, 12)) == 12
        assert time.monotonic() - began > 0.9


def test_a_silent_client_is_cut_off(path, monkeypatch):
    """After its patience is over, the server hangs up."""
    monkeypatch.setattr(server, "IDLE_TIMEOUT", 0.1)
    with serving(path):
        assert raw(path, b"") == b""


def test_more_clients_than_allowed_are_turned_away(path, monkeypatch):
    """And those who are in are served."""
    monkeypatch.setattr(server, "CLIENTS", 2)
    with serving(path):
        first, second = Client(str(path)), Client(str(path))
        assert first.call("GetStatus")
        assert second.call("GetStatus")
        with pytest.raises(NotRunningError):
            call(path, "GetStatus")
        first.close()
        second.close()


def test_a_waiting_client_does_not_keep_others_waiting(path):
    """While a reload runs, the status is told; one who hangs up changes nothing."""
    with serving(path) as backend:
        backend.waiting = []
        with socket.socket(socket.AF_UNIX) as waiting, socket.socket(socket.AF_UNIX) as leaving:
            for sock in (waiting, leaving):
                sock.settimeout(10)
                sock.connect(str(path))
                sock.sendall(
                    b'{"method":"io.preforkd.Manager.Reload","parameters":{"fresh":false}}\0'
                )
            leaving.close()
            assert call(path, "GetStatus")
            backend.call(backend.release)
            assert b"generation 4 is serving" in waiting.recv(65536)


def test_a_second_master_does_not_take_the_socket(path):
    """The live one keeps it."""
    with serving(path), pytest.raises(SystemFailure, match="another process listens there"):
        server.ControlServer(None, None, "").start(str(path), 0o660)


def test_descriptors_are_refused_by_the_kernel(path):
    """Where it can (Linux 6.16): the client cannot send them, and is served without."""
    with serving(path), socket.socket(socket.AF_UNIX) as sock:
        if not scm_rights.refuse(sock):
            pytest.skip("this kernel cannot refuse descriptors")
        sock.connect(str(path))
        with pytest.raises(PermissionError):
            socket.send_fds(sock, [b"x"], [0])
        sock.sendall(b'{"method":"io.preforkd.Manager.GetStatus"}\0')
        assert b"generation 3" in sock.recv(65536)


def test_descriptors_whose_close_waits_keep_only_their_sender(path, monkeypatch, caplog):
    """Where the kernel lets them pass: never received, and the socket is closed beside the loop.

    The descriptor's last close waits for an hour, in a thread; it was sent behind a request, too.
    """
    monkeypatch.setattr(scm_rights, "refuse", lambda sock: False)
    with serving(path):
        stuck, peer = stuck_socket()
        request = b'{"method":"io.preforkd.Manager.GetStatus"}\0'
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client, data in zip(clients, (b"x", request, request), strict=True):
            client.settimeout(10)
            client.connect(str(path))
            if client is clients[1]:
                client.sendall(request)
            socket.send_fds(client, [data], [stuck.fileno()])
        stuck.close()
        for _ in range(20):
            assert call(path, "GetStatus")
        clients[2].shutdown(socket.SHUT_WR)
        peer.close()
        for client in clients:
            with contextlib.suppress(ConnectionResetError):
                while client.recv(65536):
                    pass
            client.close()
    assert "sent file descriptors" in caplog.text


def test_sockets_that_wait_to_be_closed_are_bounded(path, monkeypatch, caplog):
    """They hold their most; when there are none left, nobody is accepted, and it is said."""
    monkeypatch.setattr(scm_rights, "refuse", lambda sock: False)
    monkeypatch.setattr(server, "CLIENTS", 2)
    monkeypatch.setattr(server, "_PAUSE", 0.01)
    go_on = threading.Event()
    real = scm_rights.close_in_thread

    def held(close, done=lambda: None):
        real(lambda: (go_on.wait(10), close()), done)

    monkeypatch.setattr(scm_rights, "close_in_thread", held)
    with serving(path) as backend:
        for _ in range(2):
            assert call(path, "GetStatus")
        wait_until(lambda: backend.server._closing == 2)
        waiting = socket.socket(socket.AF_UNIX)
        waiting.settimeout(10)
        waiting.connect(str(path))
        waiting.sendall(b'{"method":"io.preforkd.Manager.GetStatus"}\0')
        wait_until(lambda: "closed connections are still being released; pausing" in caplog.text)
        go_on.set()
        assert b"generation 3" in waiting.recv(65536)
        waiting.close()


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_who_may_only_look_sees_no_query(path):
    """It may hold what is secret; those who may command see all."""
    with serving(path) as backend:
        worker = replace(VIEW.workers[0], busy_with="GET /reset?token=5ec3e7 x HTTP/1.1")
        cut = replace(VIEW.workers[0], busy_with="GET /a?b=" + "c" * 200)
        backend.status = lambda: replace(VIEW, workers=[worker, cut])
        assert call(path, "GetStatus")["service"]["workers"][0]["busy_with"] == worker.busy_with
        manager = Manager(backend, Peer(pid=1, uid=os.geteuid() + 1, groups=frozenset()), "")
        (method,) = (one for one in manager.interface.methods if one.parameters is GetStatus)
        for memory in (None, True):
            answers = []
            method.perform(GetStatus(memory=memory), answers.append)
            shown = [row.busy_with for row in answers[0].service.workers]
            assert shown == ["GET /reset?...", "GET /a?..."]


def test_the_mode_and_the_group_say_who_may_connect(path, caplog):
    """The file has the mode; a group that the owner is no member of is admitted by the file's list."""
    with serving(path) as backend:
        assert path.stat().st_mode & 0o777 == 0o666
        backend.server.set_access(0o660, "")
        assert path.stat().st_mode & 0o777 == 0o660
        backend.server.set_access(0o660, "4242")
        if "Operation not supported" in caplog.text:
            pytest.skip("this file system has no access control lists")
        assert struct.pack("<HHI", 8, 6, 4242) in os.getxattr(path, "system.posix_acl_access")
        backend.server.set_access(0o600, "")
        with pytest.raises(OSError, match="No data available"):
            os.getxattr(path, "system.posix_acl_access")
        assert path.stat().st_mode & 0o777 == 0o600
        backend.server.set_access(0o660, "nobody-at-all")
        assert "cannot grant access to the group 'nobody-at-all'" in caplog.text
