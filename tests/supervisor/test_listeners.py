"""Which sockets are served, and who gives them back."""

import os
import socket

import pytest
from msgspec.structs import replace

from preforkd.config.settings import AppSettings, ListenSettings, Settings
from preforkd.errors import ConfigurationError, Place, SystemFailure
from preforkd.linux import defer_accept
from preforkd.linux.socket_activation import Inherited, Passed, Refused
from preforkd.supervisor.listeners import Listeners, stored_name


@pytest.fixture
def port():
    """A port that is free."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def passed():
    """Two sockets as systemd passes them."""
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield [
        Inherited(name, sock, f"127.0.0.1:{sock.getsockname()[1]}")
        for name, sock in zip(("http", "admin"), socks, strict=True)
    ]
    for sock in socks:
        sock.close()


class Store:
    """Writes down what is stored."""

    def __init__(self):
        self.names = []

    def store(self, name, descriptors):
        self.names += [name] * len(descriptors)

    def forget(self, name):
        self.names = [known for known in self.names if known != name]


def names(proposal):
    """Return the names that a proposal serves."""
    return [served.name for served in proposal.served]


def test_all_that_systemd_passes_is_served_unless_names_choose(passed, caplog):
    """Without names all; with names those, and the rest is reported."""
    listeners = Listeners(Passed(passed), Store())
    assert names(listeners.propose(Settings(), {})) == ["http", "admin"]
    chosen = Settings(listen=(ListenSettings(name="admin"),))
    assert names(listeners.propose(chosen, {})) == ["admin"]
    assert "the socket 'http'" in caplog.text
    assert "is not served: listen names only admin" in caplog.text
    assert len(listeners.propose(chosen, {}).notes) == 1


def test_a_name_that_was_not_passed_is_an_error_with_its_place(passed):
    """What was passed, and the nearest name."""
    places = {"listen[0]": Place("f", 3, 5)}
    settings = Settings(listen=(ListenSettings(name="htpp"),))
    with pytest.raises(ConfigurationError, match=r"f:3:5: listen\[0\].*'htpp'.*did you mean http"):
        Listeners(Passed(passed), Store()).propose(settings, places)
    with pytest.raises(ConfigurationError, match="it passed: none"):
        Listeners(Passed(), Store()).propose(settings, places)


def test_an_address_is_not_bound_where_systemd_passes_sockets(passed, caplog, port):
    """It is reported if it was written; the default is not."""
    settings = Settings(listen=(ListenSettings(address=f"127.0.0.1:{port}"),))
    listeners = Listeners(Passed(passed), Store())
    assert listeners.propose(settings, {}).notes == ()
    proposal = listeners.propose(settings, {"listen[0]": Place("f", 1, 9)})
    (note,) = proposal.notes
    both = ", ".join(one.address for one in passed)
    assert (
        note == f"f:1:9: listen[0]: 127.0.0.1:{port} is not served: systemd passed {both} instead"
    )
    assert note in caplog.text
    assert proposal.entries == 0


def test_a_name_with_another_address_is_told(passed, port):
    """The socket of that name is served, and the address that was written is not."""
    settings = Settings(listen=(ListenSettings(name="http", address=f"127.0.0.1:{port}"),))
    proposal = Listeners(Passed(passed), Store()).propose(settings, {"listen[0]": Place("f", 1, 9)})
    assert names(proposal) == ["http"]
    assert any(f"systemd passed {passed[0].address} instead" in note for note in proposal.notes)


def test_an_entry_without_a_name_is_that_of_its_address(passed, port):
    """It gets the entry's name, so that its TLS is spoken; others are served as they are."""
    settings = Settings(listen=(ListenSettings(address=passed[1].address, tls=True),))
    places = {"listen[0]": Place("f", 1, 9)}
    proposal = Listeners(Passed(passed), Store()).propose(settings, places)
    assert names(proposal) == ["http", passed[1].address]
    assert proposal.notes == ()
    assert proposal.entries == 1


def test_what_the_socket_unit_decides_is_told(passed):
    """Backlog and permissions of a socket from systemd; for one of our own they hold."""
    settings = Settings(listen=(ListenSettings(name="http", mode=0o600, backlog=9),))
    places = {"listen[0]": Place("f", 1, 9), "listen[0].mode": Place("f", 1, 30)}
    notes = Listeners(Passed(passed), Store()).propose(settings, places).notes
    assert "f:1:9: listen[0].mode has no effect: the socket unit's SocketMode= decides" in notes
    assert not any("backlog" in note for note in notes)


def test_what_cannot_be_served_is_told(passed, caplog):
    """Descriptor, name and reason, besides what is served."""
    refused = Refused("dns", 5, "it is a datagram socket")
    listeners = Listeners(Passed(passed, [refused]), Store())
    (note,) = listeners.propose(Settings(), {}).notes
    assert (
        note
        == "the socket 'dns' from systemd (descriptor 5) is not served: it is a datagram socket"
    )
    assert note in caplog.text


def test_nothing_is_bound_in_place_of_sockets_that_cannot_be_served():
    """Each is named with its reason; a file (OpenFile=) is no socket, and is ignored."""
    refused = [Refused("dns", 3, "it is a datagram socket"), Refused("seq", 4, "it has packets")]
    with pytest.raises(ConfigurationError) as caught:
        Listeners(Passed([], refused), Store())
    told = caught.value.report()
    assert "passed no socket that can be served" in told
    assert "'dns' from systemd (descriptor 3) is not served: it is a datagram socket" in told
    assert "'seq' from systemd (descriptor 4)" in told
    Listeners(Passed([], [Refused("words", 3, "it is not a socket", file=True)]), Store())


def test_stored_sockets_do_not_stand_for_those_of_the_socket_unit(port):
    """A restart after the socket unit was changed to datagrams is refused as a start is."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        stored = Inherited(stored_name(f"127.0.0.1:{port}"), sock, f"127.0.0.1:{port}")
        with pytest.raises(ConfigurationError, match="passed no socket"):
            Listeners(Passed([stored], [Refused("dns", 3, "it is a datagram socket")]), Store())


def test_sockets_for_another_process_explain_why_a_port_is_taken(port):
    """They are among the notes, and the hint if binding fails."""
    listeners = Listeners(Passed(foreign="LISTEN_FDS=1 is for process 7"), Store())
    settings = Settings(listen=(ListenSettings(address=f"127.0.0.1:{port}"),))
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(SystemFailure, match="already in use") as caught,
    ):
        listeners.propose(settings, {})
    assert caught.value.hint == "LISTEN_FDS=1 is for process 7"
    proposal = listeners.propose(settings, {})
    assert proposal.notes == ("LISTEN_FDS=1 is for process 7",)
    listeners.roll_back(proposal)


def test_systemds_sockets_are_given_back_as_they_were(passed):
    """Non-blocking while they are served, blocking again at the end, and still open."""
    listeners = Listeners(Passed(passed), Store())
    listeners.commit(listeners.propose(Settings(), {}))
    assert not os.get_blocking(passed[0].sock.fileno())
    listeners.close()
    assert os.get_blocking(passed[0].sock.fileno())


def kind(name):
    return Settings(app=AppSettings(target=f"{name}:a:b"))


@pytest.mark.parametrize("http", ["wsgi", "asgi"])
def test_systemds_sockets_wait_for_the_clients_bytes_while_http_is_spoken(passed, http):
    """Not with a stream handler, which may speak first; and not after the end."""
    one = passed[0].sock
    listeners = Listeners(Passed(passed), Store())
    for name, defers in ((http, True), ("stream", False), (http, True)):
        listeners.commit(listeners.propose(kind(name), {}))
        assert defer_accept.is_set(one) is defers
    listeners.close(restarting=True)
    assert not defer_accept.is_set(one)


def test_what_the_socket_unit_has_set_is_left(passed):
    """DeferAcceptSec=3s: whatever the kind, and at the end."""
    one, other = (inherited.sock for inherited in passed)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 3)
    listeners = Listeners(Passed(passed), Store())
    for name in ("wsgi", "stream"):
        listeners.commit(listeners.propose(kind(name), {}))
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 3
        assert defer_accept.is_set(other) is (name == "wsgi")
    listeners.close()
    assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 3


def test_a_stored_socket_follows_the_kind(port):
    """It was bound by an earlier run with another kind: what it has is not the socket unit's."""
    address = f"127.0.0.1:{port}"
    with socket.create_server(("127.0.0.1", port)) as sock:
        defer_accept.change(sock, defers=True)
        stored = Inherited(stored_name(address), sock, address)
        listeners = Listeners(Passed([stored]), Store())
        settings = replace(kind("stream"), listen=(ListenSettings(address=address),))
        listeners.commit(listeners.propose(settings, {}))
        assert not defer_accept.is_set(sock)
        listeners.commit(listeners.propose(replace(settings, app=kind("asgi").app), {}))
        assert defer_accept.is_set(sock)
        listeners.close()


def test_a_proposal_that_fails_takes_nothing_away(port):
    """The first address of a proposal is closed again when the second cannot be bound."""
    listeners = Listeners(Passed(), Store())
    with pytest.raises(SystemFailure, match=r"f:2:3: listen\[1\]: 192.0.2.1:1"):
        listeners.propose(
            Settings(
                listen=(
                    ListenSettings(address=f"127.0.0.1:{port}"),
                    ListenSettings(address="192.0.2.1:1"),
                )
            ),
            {"listen[1]": Place("f", 2, 3)},
        )
    socket.create_server(("127.0.0.1", port)).close()


def test_a_reload_keeps_what_it_wants_and_closes_the_rest(port, tmp_path):
    """A socket that is kept stays open; one that is not is closed, its file removed."""
    web, unix = (
        ListenSettings(address=f"127.0.0.1:{port}"),
        ListenSettings(address=f"unix:{tmp_path}/s"),
    )
    listeners = Listeners(Passed(), Store())
    listeners.commit(listeners.propose(Settings(listen=(web, unix)), {}))
    first = listeners.current.served[0].sock
    proposal = listeners.propose(Settings(listen=(web,)), {})
    assert proposal.served[0].sock is first
    again = ListenSettings(address=unix.address, mode=0o600)
    listeners.commit(listeners.propose(Settings(listen=(web, again)), {}))
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "s").exists()
    listeners.commit(proposal)
    assert not (tmp_path / "s").exists()
    other = listeners.propose(Settings(listen=(web, unix)), {})
    listeners.roll_back(other)
    assert not (tmp_path / "s").exists()
    assert first.fileno() >= 0
    listeners.close()
    assert first.fileno() == -1


def test_what_we_bound_survives_us(port, tmp_path):
    """A restart finds its sockets in the store; what is configured no more leaves it."""
    web, unix = (
        ListenSettings(address=f"127.0.0.1:{port}"),
        ListenSettings(address=f"unix:{tmp_path}/s"),
    )
    both, store = Settings(listen=(web, unix)), Store()
    first = Listeners(Passed(), store)
    first.commit(first.propose(both, {}))
    assert sorted(store.names) == sorted([stored_name(web.address), stored_name(unix.address)])
    kept = [
        Inherited(stored_name(served.address), served.sock.dup(), served.address)
        for served in first.current.served
    ]
    first.close(restarting=True)
    assert len(store.names) == 2
    assert (tmp_path / "s").exists()
    second = Listeners(Passed(kept), store)
    proposal = second.propose(Settings(listen=(web,)), {})
    assert [served.origin for served in proposal.served] == ["stored"]
    assert proposal.served[0].sock is kept[0].sock
    second.commit(proposal)
    assert store.names == [stored_name(web.address)]
    assert not (tmp_path / "s").exists()
    second.close()
    assert store.names == []


def test_a_stored_unix_socket_without_its_file_is_bound_anew(tmp_path, caplog):
    """No client could connect to it: the new one is reachable, and stored in its place."""
    path = tmp_path / "web.sock"
    unix = ListenSettings(address=f"unix:{path}")
    store = Store()
    old = socket.socket(socket.AF_UNIX)
    old.bind(str(path))
    old.listen()
    path.unlink()
    store.names = [stored_name(unix.address)]
    kept = Inherited(stored_name(unix.address), old, unix.address)
    listeners = Listeners(Passed([kept]), store)
    proposal = listeners.propose(Settings(listen=(unix,)), {})
    assert [served.origin for served in proposal.served] == ["bound"]
    assert store.names == []
    listeners.commit(proposal)
    assert store.names == [stored_name(unix.address)]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert "its file is gone" in caplog.text
    listeners.close()


def test_an_idle_exit_needs_sockets_from_systemd(passed, port, caplog):
    """Without sockets from systemd nothing would start the service again: it does not exit, and warns."""
    settings = Settings(listen=(ListenSettings(address=f"127.0.0.1:{port}"),), idle_exit=5.0)
    listeners = Listeners(Passed([]), Store())
    proposal = listeners.propose(settings, {"idle_exit": Place("/f.yaml", 3, 12)})
    listeners.roll_back(proposal)
    (note,) = proposal.notes
    assert note == "/f.yaml:3:12: idle_exit has no effect: systemd has passed no socket"
    assert note in caplog.text
    chosen = Settings(
        listen=(ListenSettings(name="admin"), ListenSettings(name="http")), idle_exit=5.0
    )
    assert Listeners(Passed(passed), Store()).propose(chosen, {}).notes == ()
