"""The trial request of a new generation (``app.check``), answered before any of its workers serves.

A worker is forked as all others will be, with a listener that nobody else knows, and is sent one request.
Then it leaves as workers leave. So what the request does to the process, connections that it opens for
example, is not in the zygote, and what hangs is killed. What it does elsewhere, it has done.
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
"""The name of the worker's listener; none of the settings' has it."""
_FAREWELL = 5.0
"""Seconds for the worker to leave after its answer."""
_STACKS = 0.2
"""Seconds for the worker to write its stacks."""
_HEAD = 64 * 1024

_from_worker: "msgspec.msgpack.Decoder[messages.FromWorker]" = msgspec.msgpack.Decoder(
    messages.FromWorker
)

Live = Callable[[socket.socket, int, int], object]
"""Lives a worker's life with this listener, channel and slot memory."""


def check(what: str, live: Live, patience: float) -> Failure | None:
    """Have a worker answer GET for this path or URL; return why the generation is not to serve, or None.

    ``patience``: seconds until the answer must be complete.
    """
    try:
        listener, client = _connection()
        with listener, client:
            worker = _fork(live, listener, client)
            try:
                return worker.ask(client, what, time.monotonic() + patience, patience)
            finally:
                worker.end()
    except OSError as error:
        return Failure(Blame.SYSTEM, f"{SETTING}: it cannot be tried: {error}", "", "", SETTING)


def _connection() -> tuple[socket.socket, socket.socket]:
    # By a path that nobody else may look at, and that is gone before anybody listens.
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


def _fork(live: Live, listener: socket.socket, client: socket.socket) -> "_Worker":
    ours, theirs = pair()
    memory = slots.create(LISTENER)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads are told of by name
            pid = os.fork()
        if pid == 0:
            try:
                process.set_parent_death_signal(signal.SIGKILL)
                ours.close()
                client.close()
                live(listener, theirs.detach(), memory)
            except BaseException:
                logger.exception("the worker that was to answer %s failed", SETTING)
            finally:
                os._exit(1)
        return _Worker(pid, Channel(ours, _from_worker), slots.SlotReader(os.dup(memory)))
    finally:
        theirs.close()
        os.close(memory)


class _LateError(Exception):
    """The time is over."""


class _Worker:
    """The worker, as its master sees it."""

    def __init__(
        self, pid: int, channel: Channel[messages.FromWorker], slot: slots.SlotReader
    ) -> None:
        self._pidfd = process.open_child(pid)
        self._channel = channel
        self._slot = slot

    def ask(
        self, client: socket.socket, what: str, deadline: float, patience: float
    ) -> Failure | None:
        """Let it serve and answer one request."""
        try:
            if (failure := self._wait_until_ready(deadline)) is not None:
                return failure
            self._channel.send(messages.Serve())
            client.setblocking(False)
            client.send(_request(what))
            answer = _read(client, deadline)
        except _LateError:
            late = f"{SETTING}: GET {what} was not answered within {round(patience, 1):g} s"
            return Failure(Blame.APPLICATION, late, self._stacks(), "", SETTING)
        except (ChannelClosedError, ConnectionError):
            answer = b""
        reason = _judge(answer)
        if not reason:
            with contextlib.suppress(ChannelClosedError, OSError):
                self._channel.send(messages.Retire())
            self._wait_for_end(_FAREWELL)
            return None
        hint = ""
        if reason.startswith("was answered with 400"):
            hint = "if it does not know the host localhost, write a URL: http://shop.example/"
        return Failure(Blame.APPLICATION, f"{SETTING}: GET {what} {reason}", "", hint, SETTING)

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
        self._wait_for_end(_STACKS)
        found = self._slot.stacks()
        return f"stacks of the worker:\n{found}" if found else ""

    def _wait_for_end(self, patience: float) -> None:
        select.select([self._pidfd], [], [], patience)

    def end(self) -> None:
        """Have it be no more."""
        process.send_signal(self._pidfd, signal.SIGKILL)
        self._wait_for_end(_FAREWELL)
        process.reap(self._pidfd)
        os.close(self._pidfd)
        self._channel.close()
        self._slot.close()


def _request(what: str) -> bytes:
    parts = urlsplit(what)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return (
        f"GET {target} HTTP/1.1\r\nHost: {parts.netloc or 'localhost'}\r\nUser-Agent: preforkd\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    ).encode()


def _read(client: socket.socket, deadline: float) -> bytes:
    """Return the beginning of the answer, when all of it has come."""
    answer = b""
    while True:
        _wait_for(client.fileno(), deadline)
        with contextlib.suppress(BlockingIOError):
            piece = client.recv(65536)
            if not piece:
                return answer
            if len(answer) < _HEAD:
                answer += piece


def _wait_for(descriptor: int, deadline: float) -> None:
    rest = deadline - time.monotonic()
    if rest <= 0 or not select.select([descriptor], [], [], rest)[0]:
        raise _LateError


def _judge(answer: bytes) -> str:
    """Return what is wrong with an answer; empty: nothing."""
    line = answer.partition(b"\r\n")[0].decode("latin-1")
    version, _, status = line.partition(" ")
    if not version.startswith("HTTP/1.") or not status[:3].isdigit():
        return "was not answered: the worker has closed the connection; the log has its words"
    return f"was answered with {status}" if int(status[:3]) >= 400 else ""
