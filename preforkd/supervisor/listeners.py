"""The listeners: which sockets the settings name, where they come from, and when they are closed.

Sockets from systemd are identified by name, never by order. They are never closed, shut down or unlinked, and
what was changed about them is restored at exit. A reload proposes a new set next to the current one, so that a
proposal that fails changes nothing.

systemd keeps copies of the sockets that preforkd has bound (its file descriptor store), so that the port
stays open and connections wait while the service restarts or after the master was killed.
"""

import logging
import os
import socket
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from preforkd.config.address import TcpAddress, UnixAddress, parse_address
from preforkd.config.kinds import kind_of
from preforkd.config.settings import ListenSettings, Settings
from preforkd.errors import ConfigurationError, Place, Problem, SystemFailure, did_you_mean
from preforkd.ipc import scm_rights
from preforkd.linux import bind, defer_accept
from preforkd.linux.socket_activation import (
    Inherited,
    Passed,
    restore_blocking,
    serves_path,
    serves_tcp,
    set_nonblocking,
)

logger = logging.getLogger("preforkd.master")

_STORED = "preforkd-listener-"
_OF_UNITS = {
    "backlog": "the socket unit's Backlog= decides",
    "mode": "the socket unit's SocketMode= decides",
    "owner": "the socket unit's SocketUser= decides",
    "group": "the socket unit's SocketGroup= decides",
}
"""Settings of an entry that have no effect on a socket from systemd."""


class Served(msgspec.Struct, frozen=True):
    """A socket on which workers accept."""

    name: str
    sock: socket.socket
    origin: str
    """``systemd``, ``bound``, or ``stored``: bound by an earlier run, kept by systemd meanwhile."""
    address: str


class Proposal(msgspec.Struct):
    """A set of sockets for a generation; ``bound`` maps each address to what is bound for it."""

    served: tuple[Served, ...]
    bound: dict[str, list[socket.socket]] = {}
    fresh: list[socket.socket] = []
    """Sockets that were bound for this proposal; a rollback closes them."""
    kept: list[tuple[ListenSettings, socket.socket]] = []
    """Sockets that are served already."""
    entries: int = 0
    """Number of entries of ``listen`` that describe a served socket."""
    notes: tuple[str, ...] = ()
    """Messages about entries and passed sockets that are not served."""
    takes_descriptors: bool = True
    """Clients of Unix sockets may send descriptors, which only a stream handler can receive."""
    client_begins: bool = False
    """The protocol is HTTP: a connection without a byte from its client is no work for a worker."""

    def pairs(self) -> tuple[tuple[str, socket.socket], ...]:
        """Return names and sockets, as a generation is started with them."""
        return tuple((served.name, served.sock) for served in self.served)


class Store(Protocol):
    """Where copies of sockets outlive the master; `preforkd.linux.sd_notify.Notifier`."""

    def store(self, name: str, descriptors: Sequence[int]) -> None:
        """Keep copies under this name."""

    def forget(self, name: str) -> None:
        """Drop them."""


def stored_name(address: str) -> str:
    """Return the name under which a socket is stored; names must not contain a colon."""
    # Not a security matter, and hashlib would load OpenSSL into the master.
    data = address.encode()
    return f"{_STORED}{zlib.crc32(data):08x}{zlib.crc32(data[::-1]):08x}"


class Listeners:
    """The sockets from systemd and those that preforkd binds; `propose`, then `commit` or `roll_back`.

    Raises ConfigurationError if systemd passed sockets, but none that can be served.
    """

    def __init__(self, passed: Passed, store: Store) -> None:
        self._store = store
        self._inherited = [one for one in passed.good if not one.name.startswith(_STORED)]
        self._stored: dict[str, list[socket.socket]] = {}
        for one in passed.good:
            if one.name.startswith(_STORED):
                self._stored.setdefault(one.name, []).append(one.sock)
        self._was_blocking: dict[int, bool] = {}
        self._deferred_by_unit = {
            one.sock.fileno() for one in self._inherited if defer_accept.is_set(one.sock)
        }
        """Sockets for which DeferAcceptSec= of the socket unit decides."""
        self.current = Proposal(())
        self._unfit = [
            f"the socket {record.name!r} from systemd (descriptor {record.fd}) is not served: {record.reason}"
            for record in passed.bad
        ]
        self._foreign = passed.foreign
        if not self._inherited and any(not record.file for record in passed.bad):
            place, message = Place("systemd"), "passed no socket that can be served"
            problems = [Problem(place, "", text) for text in (message, *self._unfit)]
            raise ConfigurationError(problems)

    @property
    def from_systemd(self) -> bool:
        """Return whether the served sockets are systemd's, and so stay open when the service exits."""
        return bool(self._inherited)

    def propose(self, settings: Settings, places: Mapping[str, Place]) -> Proposal:
        """Return the sockets of these settings, bound where they are not yet.

        An entry without a name describes the passed sockets that serve its address; they get its name.
        Raises ConfigurationError for a name that systemd did not pass and SystemFailure for an address
        that cannot be bound, each naming the setting and its place.
        """
        proposal = (self._from_systemd if self._inherited else self._bind_all)(settings, places)
        notes = [*proposal.notes, *self._unfit]
        if settings.idle_exit and not self._inherited:
            place = places.get("idle_exit", "idle_exit")
            notes.append(f"{place}: idle_exit has no effect: systemd has passed no socket")
        proposal.notes = tuple([*notes, self._foreign] if self._foreign else notes)
        for note in proposal.notes:
            logger.warning("%s", note)
        kind = kind_of(settings.app.target)
        proposal.takes_descriptors, proposal.client_begins = kind.name == "stream", kind.http
        return proposal

    def commit(self, proposal: Proposal) -> None:
        """Make the proposal the current set; close sockets that it does not contain."""
        for address, socks in self.current.bound.items():
            if address not in proposal.bound:
                self._store.forget(stored_name(address))
                for sock in socks:
                    _close(sock)
        for address, socks in proposal.bound.items():
            if address not in self.current.bound and stored_name(address) not in self._stored:
                self._store.store(stored_name(address), [sock.fileno() for sock in socks])
        self._forget_stored(proposal)
        for listen, sock in proposal.kept:
            _apply_access(listen, sock)
        for served in proposal.served:
            if served.sock.family == socket.AF_UNIX:
                change = scm_rights.allow if proposal.takes_descriptors else scm_rights.refuse
                change(served.sock)
            elif served.sock.fileno() not in self._deferred_by_unit:
                defer_accept.change(served.sock, defers=proposal.client_begins)
        self.current = proposal

    def roll_back(self, proposal: Proposal) -> None:
        """Close what was bound for the proposal."""
        for sock in proposal.fresh:
            _close(sock)

    def _forget_stored(self, proposal: Proposal) -> None:
        # What an earlier configuration left in the store would stay bound for ever.
        served = {stored_name(address) for address in proposal.bound}
        for name, socks in self._stored.items():
            if name not in served:
                self._store.forget(name)
                for sock in socks:
                    _close(sock)
        self._stored = {}

    def close(self, *, restarting: bool = False) -> None:
        """Close what preforkd has bound, and restore what systemd passed.

        ``restarting``: stored copies and the files of Unix sockets are kept.
        """
        for inherited in self._inherited:
            if self._was_blocking.get(inherited.sock.fileno()):
                restore_blocking(inherited.sock)
            if inherited.sock.family == socket.AF_UNIX:
                scm_rights.allow(inherited.sock)
            elif inherited.sock.fileno() not in self._deferred_by_unit:
                defer_accept.change(inherited.sock, defers=False)
        if not restarting:
            self.commit(Proposal(()))
            return
        for socks in self.current.bound.values():
            for sock in socks:
                sock.close()

    # --- from systemd ----------------------------------------------------------------------------

    def _from_systemd(self, settings: Settings, places: Mapping[str, Place]) -> Proposal:
        passed = {inherited.name for inherited in self._inherited}
        wanted = {listen.name for listen in settings.listen if listen.name}
        problems = [
            _not_passed(listen, passed, places.get(f"listen[{index}]", Place("listen")), index)
            for index, listen in enumerate(settings.listen)
            if listen.name and listen.name not in passed
        ]
        if problems:
            raise ConfigurationError(problems)
        described: dict[int, ListenSettings] = {}
        notes: list[str] = []
        for index, listen in enumerate(settings.listen):
            place = places.get(f"listen[{index}]") or places.get("listen")
            if not listen.name and place is None:
                continue  # the default, which is not in the configuration
            ours = [one for one in self._inherited if _describes(listen, one)]
            described |= {one.sock.fileno(): listen for one in ours}
            where = f"{place}: listen[{index}]"
            notes += self._unserved(where, listen, ours)
            if ours:
                written = (name for name in _OF_UNITS if f"listen[{index}].{name}" in places)
                notes += (f"{where}.{name} has no effect: {_OF_UNITS[name]}" for name in written)
        served = []
        for inherited in self._inherited:
            descriptor = inherited.sock.fileno()
            entry = described.get(descriptor)
            if wanted and entry is None:
                names = ", ".join(sorted(wanted))
                notes.append(
                    f"the socket {inherited.name!r} ({inherited.address}) from systemd is not served: "
                    f"listen names only {names}"
                )
                continue
            if descriptor not in self._was_blocking:
                self._was_blocking[descriptor] = set_nonblocking(inherited.sock)
            name = inherited.name if entry is None or entry.name else entry.address
            served.append(Served(name, inherited.sock, "systemd", str(inherited.address)))
        return Proposal(tuple(served), entries=len(described), notes=tuple(notes))

    def _unserved(self, where: str, listen: ListenSettings, ours: list[Inherited]) -> Iterator[str]:
        if listen.address and not any(_serves(one.sock, listen.address) for one in ours):
            passed = ", ".join(one.address for one in ours or self._inherited)
            yield f"{where}: {listen.address} is not served: systemd passed {passed} instead"

    # --- bound by preforkd ------------------------------------------------------------------------------

    def _bind_all(self, settings: Settings, places: Mapping[str, Place]) -> Proposal:
        proposal = Proposal(())
        served: list[Served] = []
        try:
            for index, listen in enumerate(settings.listen):
                place = places.get(f"listen[{index}]") or places.get("listen") or Place("default")
                _require_address(listen, place, index)
                socks = self._bound(listen, proposal, place, index)
                origin = "stored" if stored_name(listen.address) in self._stored else "bound"
                served.extend(_served(listen, sock, origin) for sock in socks)
        except BaseException:
            self.roll_back(proposal)
            raise
        proposal.served, proposal.entries = tuple(served), len(settings.listen)
        return proposal

    def _bound(
        self, listen: ListenSettings, proposal: Proposal, place: Place, index: int
    ) -> list[socket.socket]:
        key = listen.address
        self._give_up_unreachable(key)
        socks = self.current.bound.get(key) or self._stored.get(stored_name(key))
        if socks is None:
            try:
                socks = _bind(listen)
            except SystemFailure as error:
                error.message = f"{place}: listen[{index}]: {error.message}"
                error.args = (error.message,)
                error.hint = self._foreign or self._hint_of_our_own(listen) or error.hint
                raise
            proposal.fresh.extend(socks)
        else:
            for sock in socks:
                sock.listen(listen.backlog)
            proposal.kept.extend((listen, sock) for sock in socks)
        proposal.bound[key] = socks
        return socks

    def _give_up_unreachable(self, key: str) -> None:
        # No client reaches a stored Unix socket whose file is gone, with a RuntimeDirectory= that was not
        # preserved for example.
        parsed = parse_address(key)
        name = stored_name(key)
        gone = isinstance(parsed, UnixAddress) and not os.path.exists(parsed.path)
        if gone and name in self._stored:
            logger.warning(
                "%s: systemd kept the socket, but its file is gone; binding it again", key
            )
            self._store.forget(name)
            for sock in self._stored.pop(name):
                sock.close()

    def _hint_of_our_own(self, listen: ListenSettings) -> str:
        wanted = _port(listen.address)
        for key in self.current.bound:
            if wanted is not None and _port(key) == wanted:
                return f"preforkd itself listens on this port, as {key}; restart the service to change that"
        return ""


def _port(address: str) -> int | None:
    parsed = parse_address(address)
    return parsed.port if isinstance(parsed, TcpAddress) else None


def _apply_access(listen: ListenSettings, sock: socket.socket) -> None:
    if sock.family != socket.AF_UNIX:
        return
    try:
        bind.set_access(sock, listen.mode, listen.owner, listen.group)
    except (OSError, SystemFailure) as error:
        logger.warning("%s: cannot change mode, owner or group: %s", listen.address, error)


def _bind(listen: ListenSettings) -> list[socket.socket]:
    address = parse_address(listen.address)
    if isinstance(address, UnixAddress):
        return [
            bind.bind_unix(address.path, listen.mode, listen.owner, listen.group, listen.backlog)
        ]
    assert isinstance(address, TcpAddress)
    return bind.bind_tcp(address.host, address.port, listen.backlog)


def _require_address(listen: ListenSettings, place: Place, index: int) -> None:
    if not listen.address:
        raise ConfigurationError([_not_passed(listen, set(), place, index)])


def _describes(listen: ListenSettings, one: Inherited) -> bool:
    return one.name == listen.name if listen.name else _serves(one.sock, listen.address)


def _serves(sock: socket.socket, text: str) -> bool:
    address = parse_address(text)
    if isinstance(address, UnixAddress):
        return serves_path(sock, address.path)
    return serves_tcp(sock, address.host, address.port)


def _served(listen: ListenSettings, sock: socket.socket, origin: str) -> Served:
    return Served(listen.name or listen.address, sock, origin, listen.address)


def _close(sock: socket.socket) -> None:
    if sock.family == socket.AF_UNIX:
        bind.close_unix(sock)
    else:
        sock.close()


def _not_passed(listen: ListenSettings, passed: set[str], place: Place, index: int) -> Problem:
    names = ", ".join(sorted(passed)) or "none"
    if passed:
        otherwise = "names come from FileDescriptorName= of the socket unit"
    else:
        otherwise = "start the socket unit, or give the entry an address to bind"
    return Problem(
        place,
        f"listen[{index}]",
        f"systemd passed no socket named {listen.name!r}; it passed: {names}",
        did_you_mean(listen.name, passed) or otherwise,
    )
