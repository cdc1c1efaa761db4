"""The control socket: accepts clients within limits, so that none of them can harm the master."""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asyncvarlink import (
    VarlinkInterfaceRegistry,
    VarlinkInterfaceServerProtocol,
    VarlinkTransport,
)
from asyncvarlink.serviceinterface import VarlinkServiceInterface

import preforkd
from preforkd.control.access import may_command, peer_of
from preforkd.control.manager import INTERFACE, Backend, Manager
from preforkd.errors import SystemFailure
from preforkd.linux import bind

logger = logging.getLogger("preforkd.master")

CLIENTS = 64
"""Clients at a time; more are turned away."""
_RESERVED = 16
"""Seats that those who may only look cannot take."""
MESSAGE = 64 * 1024
"""Bytes of one request."""
UNREAD = 512
"""Answers that a client may leave unread; the library sends all in one piece, of at most 1024 (IOV_MAX)."""
PATIENCE = 60.0
"""Seconds that a client may be silent while nothing is asked of us, or not read our answer."""
_FAREWELL = 2.0
_PAUSE = 1.0
"""Seconds without accepting after the system had no descriptor for a client."""
_BACKLOG = 16


def resolve(setting: str, environ: Mapping[str, str]) -> str | None:
    """Return the socket's path for the value of ``control.socket``; None for ``off``."""
    if setting == "off":
        return None
    return setting or default_path(environ)


def default_path(environ: Mapping[str, str]) -> str:
    """Return the path in $RUNTIME_DIRECTORY, else in the user's runtime directory."""
    if directory := environ.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        return f"{directory}/{INTERFACE}"
    if os.geteuid() == 0:
        return f"/run/preforkd/{INTERFACE}"
    home = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return f"{home}/preforkd/{INTERFACE}"


class _Client(VarlinkInterfaceServerProtocol):
    """One client; it is cut off when it says too much, or nothing for too long."""

    def __init__(self, registry: VarlinkInterfaceRegistry) -> None:
        super().__init__(registry)
        self._unfinished = 0
        self._pending = 0
        self._unread = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wait()

    def message_received(self, data: bytes, fds: Any) -> None:
        head, separator, tail = data.rpartition(b"\0")
        self._unfinished = len(tail) if separator else self._unfinished + len(data)
        if self._unfinished > MESSAGE or len(head) > MESSAGE:
            logger.warning("a client of the control socket said too much, and is cut off")
            self.abort()
            return
        try:
            super().message_received(data, fds)
        except (ValueError, RecursionError) as error:
            # What is no UTF-8, or nested too deeply, the library does not answer.
            logger.warning("a client of the control socket is cut off: %s", error)
            self.abort()
            return
        if separator and self._transport is not None:
            # The library reads on when what was asked has been dealt with, so that a client
            # that asks faster than we answer waits, and its requests do not gather here.
            self._transport.pause_reading()
        self._wait()

    def call_received(self, call: Any, fds: Any) -> "asyncio.Future[None] | None":
        if self._transport is None or self._transport.is_closing():
            return None  # it was cut off, and had said more before
        future: asyncio.Future[None] | None = super().call_received(call, fds)
        if future is not None:
            self._pending += 1
            future.add_done_callback(self._answered)
        return future

    def _answered(self, _future: "asyncio.Future[None]") -> None:
        self._pending -= 1
        self._wait()

    def send_reply(self, *arguments: Any, **options: Any) -> "asyncio.Future[None]":
        sent: asyncio.Future[None] = super().send_reply(*arguments, **options)
        self._unread += 1
        sent.add_done_callback(self._sent)
        if self._unread > UNREAD:
            logger.warning("a client of the control socket does not read, and is cut off")
            self.abort()
        return sent

    def _sent(self, _future: "asyncio.Future[None]") -> None:
        self._unread -= 1

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._out_of_patience)

    def _out_of_patience(self) -> None:
        if self._pending:
            self._wait()
        else:
            self.abort()

    def abort(self) -> None:
        """Cut the client off, with whatever it has not read."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)


class ControlServer:
    """Serves `Manager` on a Unix socket; ``group`` may give commands too."""

    def __init__(self, backend: Backend, group: str) -> None:
        self._backend = backend
        self._group = group
        self._sock: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._full = False
        """The last client was turned away, and it was said."""
        self._clients: dict[_Client, VarlinkTransport] = {}

    async def start(self, path: str) -> None:
        """Bind the path and serve it. Raises SystemFailure.

        The file's mode lets everybody connect, and so read; who may command is decided by who asks.
        """
        folder = Path(path).parent
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            raise SystemFailure(f"{folder} cannot be made: {error.strerror}") from error
        self._sock = bind.bind_unix(path, 0o666, "", "", _BACKLOG)
        self._listen()

    def _listen(self) -> None:
        self._pause = None
        assert self._sock is not None
        asyncio.get_running_loop().add_reader(self._sock.fileno(), self._accept)

    def set_group(self, group: str) -> None:
        """Let another group command, from the next client on."""
        self._group = group

    def _accept(self) -> None:
        assert self._sock is not None
        try:
            sock, _ = self._sock.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # The client waits in the kernel's queue, and would be told of again and again.
            logger.warning("control socket: %s; pausing", error.strerror)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._sock.fileno())
            self._pause = loop.call_later(_PAUSE, self._listen)
            return
        try:
            peer = peer_of(sock)
        except OSError as error:
            logger.debug("control socket: who connects is unknown: %s", error)
            sock.close()
            return
        seats = CLIENTS - (0 if may_command(peer, self._group) else _RESERVED)
        if len(self._clients) >= seats:
            if not self._full:
                text = "the control socket has %d clients; others are turned away, user %d first"
                logger.warning(text, len(self._clients), peer.uid)
            self._full = True
            sock.close()
            return
        self._full = False
        manager = Manager(self._backend, peer, self._group)
        registry = VarlinkInterfaceRegistry()
        registry.register_interface(manager)
        registry.register_interface(
            VarlinkServiceInterface("preforkd", "preforkd", preforkd.VERSION, "", registry)
        )
        client = _Client(registry)
        # With a predictor of boundaries the library reads until nothing is there, which a client
        # that writes faster puts off for ever; they matter only where descriptors are passed.
        loop = asyncio.get_running_loop()
        transport = VarlinkTransport(loop, sock, sock, client, boundary_predictor=None)
        self._clients[client] = transport
        transport.closed_future.add_done_callback(lambda _: self._clients.pop(client, None))

    async def close(self) -> None:
        """Take no more clients, let answers go out, hang up, and remove the socket's file."""
        if self._sock is None:
            return
        if self._pause is not None:
            self._pause.cancel()
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        bind.close_unix(self._sock)
        self._sock = None
        for transport in list(self._clients.values()):
            transport.close()
        waiting = [transport.closed_future for transport in self._clients.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=_FAREWELL)
        for client in list(self._clients):
            client.abort()
