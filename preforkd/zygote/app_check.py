"""The trial request of a new generation (``app.check``), answered before any of its workers serves.

A worker is forked like all others, with a private listener, receives one request and is retired.  So the
effects of the request on its process, connections that it opens for example, do not reach the zygote, and a
worker that hangs can be killed.  Effects outside the process, in a database for example, remain.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import tempfile
import time
import warnings
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from preforkd.errors import Blame, Failure
from preforkd.ipc import messages, slots
from preforkd.ipc.channel import Channel, ChannelClosedError, MalformedMessageError, pair
from preforkd.linux import process, stacks

logger = logging.getLogger("preforkd.zygote")

SETTING = "app.check"
LISTENER = "preforkd-check"
"""The name of the worker's listener; no listener of the settings can have it."""
_EXIT_TIMEOUT = 5.0
"""Seconds for the worker to exit after the response."""
_STACKS_TIMEOUT = 0.2
"""Seconds for the worker to write its stacks."""
_HEAD_LIMIT = 64 * 1024

_from_worker: "msgspec.msgpack.Decoder[messages.FromWorker]" = msgspec.msgpack.Decoder(
    messages.FromWorker
)

StartWorker = Callable[[socket.socket, int, int], object]
"""Runs a worker with a listener, a channel and a slot's memory; does not return."""


def check(url: str, start_worker: StartWorker, timeout: float) -> Failure | None:
    """Send GET for this path or URL to a worker; return why the generation must not serve, or None.

    An empty one: the worker only has to become ready. ``timeout``: seconds until the response must be complete.
    """
    try:
        listener, client = _connection()
        with listener, client:
            worker = _fork(start_worker, listener, client)
            try:
                return worker.send_request(client, url, time.monotonic() + timeout, timeout)
            finally:
                worker.kill()
    except OSError as error:
        return Failure(
            Blame.SYSTEM,
            f"{SETTING}: the trial request could not be sent: {error}",
            "",
            "",
            SETTING,
        )


def _connection() -> tuple[socket.socket, socket.socket]:
    # In a directory of mode 0700; the path is removed once the client is connected.
    before = tempfile.tempdir
    try:
        folder = tempfile.mkdtemp(prefix="preforkd-")
    finally:
        tempfile.tempdir = before
    path = os.path.join(folder, "check")
    listener, client = (socket.socket(socket.AF_UNIX) for _ in range(2))
    try:
        listener.bind(path)
        listener.listen(1)
        listener.setblocking(False)
        client.connect(path)
    except OSError:
        listener.close()
        client.close()
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.rmdir(folder)
    return listener, client


def _fork(start_worker: StartWorker, listener: socket.socket, client: socket.socket) -> "_Worker":
    ours, theirs = pair()
    memory = slots.create(LISTENER)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # threads have been logged with their names
            pid = os.fork()
        if pid == 0:
            try:
                process.set_parent_death_signal(signal.SIGKILL)
                ours.close()
                client.close()
                start_worker(listener, theirs.detach(), memory)
            except BaseException:
                logger.exception("%s: the worker for the trial request failed", SETTING)
            finally:
                os._exit(1)
        return _Worker(pid, Channel(ours, _from_worker), slots.SlotReader(os.dup(memory)))
    finally:
        theirs.close()
        os.close(memory)


class _TimeoutError(Exception):
    """The deadline has passed."""


class _Worker:
    """The worker, which has this process for its master."""

    def __init__(
        self, pid: int, channel: Channel[messages.FromWorker], slot: slots.SlotReader
    ) -> None:
        self._pidfd = process.open_child(pid)
        self._channel = channel
        self._slot = slot

    def send_request(
        self, client: socket.socket, url: str, deadline: float, timeout: float
    ) -> Failure | None:
        """Send the request to the worker; return why its response is not accepted, or None."""
        what, setting = (
            (f"{SETTING}: GET {url}", SETTING) if url else ("loading the application", "")
        )
        try:
            if (failure := self._wait_until_ready(deadline)) is not None:
                return failure
            if not url:
                self._retire()
                return None
            self._channel.send(messages.Serve())
            client.setblocking(False)
            client.send(_request(url))
            answer = _read(client, deadline)
        except _TimeoutError:
            how = "was not answered within" if url else "took longer than"
            late = f"{what} {how} {round(timeout, 1):g} s"
            return Failure(Blame.APPLICATION, late, self._stacks(), "", setting)
        except (ChannelClosedError, ConnectionError):
            answer = b""
        reason = _rejection(answer) if url else "ended its worker; its log messages have the reason"
        if not reason:
            self._retire()
            return None
        hint = ""
        if reason.startswith("was answered with 400"):
            hint = (
                "if the application rejects the host localhost, write a URL: http://shop.example/"
            )
        return Failure(Blame.APPLICATION, f"{what} {reason}", "", hint, setting)

    def _retire(self) -> None:
        with contextlib.suppress(ChannelClosedError, OSError):
            self._channel.send(messages.Retire())
        self._wait_for_exit(_EXIT_TIMEOUT)

    def _wait_until_ready(self, deadline: float) -> Failure | None:
        while True:
            _wait_for(self._channel.fileno(), deadline)
            try:
                received = self._channel.receive(wait=False)
            except MalformedMessageError:
                continue
            match received and received.message:
                case messages.Ready():
                    return None
                case messages.Failed(failure=failure):
                    return failure

    def _stacks(self) -> str:
        self._slot.expect_stacks()
        process.send_signal(self._pidfd, stacks.SIGNAL)
        self._wait_for_exit(_STACKS_TIMEOUT)
        found = self._slot.stacks()
        return f"stacks of the worker:\n{found}" if found else ""

    def _wait_for_exit(self, timeout: float) -> None:
        select.select([self._pidfd], [], [], timeout)

    def kill(self) -> None:
        """Kill and reap the worker."""
        process.send_signal(self._pidfd, signal.SIGKILL)
        self._wait_for_exit(_EXIT_TIMEOUT)
        process.reap(self._pidfd)
        os.close(self._pidfd)
        self._channel.close()
        self._slot.close()


def _request(url: str) -> bytes:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return (
        f"GET {target} HTTP/1.1\r\nHost: {parts.netloc or 'localhost'}\r\nUser-Agent: preforkd\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    ).encode()


def _read(client: socket.socket, deadline: float) -> bytes:
    """Return the beginning of the response, once it is complete."""
    answer = b""
    while True:
        _wait_for(client.fileno(), deadline)
        with contextlib.suppress(BlockingIOError):
            piece = client.recv(65536)
            if not piece:
                return answer
            if len(answer) < _HEAD_LIMIT:
                answer += piece


def _wait_for(descriptor: int, deadline: float) -> None:
    rest = deadline - time.monotonic()
    if rest <= 0 or not select.select([descriptor], [], [], rest)[0]:
        raise _TimeoutError


def _rejection(answer: bytes) -> str:
    """Return why a response is not accepted; empty if it is."""
    line = answer.partition(b"\r\n")[0].decode("latin-1")
    version, _, status = line.partition(" ")
    if not version.startswith("HTTP/1.") or not status[:3].isdigit():
        return (
            "was not answered: the worker closed the connection; its log messages have the reason"
        )
    return f"was answered with {status}" if int(status[:3]) >= 400 else ""
