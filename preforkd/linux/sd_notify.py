"""What the service tells its manager: datagrams to $NOTIFY_SOCKET.

sd_notify(3), systemd.service(5).

systemd-python's own function reads the socket's name from the environment, which is cleaned before
the application could see it; the protocol is one datagram of lines.
"""

import array
import contextlib
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence

logger = logging.getLogger("preforkd.master")

_STATUS_LIMIT = 1000
"""Bytes of a status line: systemd drops a datagram of more than 4096 bytes whole, without a word."""
_SEND_TIMEOUT = 1.0
"""Seconds that a manager which does not read may hold us up; the message is lost then."""


class Notifier:
    """Talks to the manager, if there is one; never raises, a message that is lost is logged."""

    def __init__(self, address: str | None = None, watchdog_interval: float | None = None) -> None:
        self.watchdog_interval = watchdog_interval
        """Seconds between two pings at the most; None when the manager expects none."""
        self._sock: socket.socket | None = None
        if address:
            self._address = "\0" + address[1:] if address.startswith("@") else address
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            _bound_sending(self._sock, _SEND_TIMEOUT)
        self._missing = False
        """The last message was lost, and it was said."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Notifier":
        """Return a notifier for $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        return cls(address, _watchdog_interval(environ))

    @property
    def active(self) -> bool:
        """Tell whether there is a manager to talk to."""
        return self._sock is not None

    def ready(self, status: str) -> None:
        """Say that the service serves, after a start or a reload."""
        self._send("READY=1", _status(status))

    def reloading(self, status: str) -> None:
        """Say that a reload has begun (Type=notify-reload wants the time of it)."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", _status(status))

    def stopping(self, status: str) -> None:
        """Say that the service is on its way out."""
        self._send("STOPPING=1", _status(status))

    def status(self, text: str) -> bool:
        """Say what is true, in one line; False when the manager has no room for it now."""
        return self._send(_status(text), wait=False)

    def watchdog(self) -> None:
        """Say that the service is alive."""
        self._send("WATCHDOG=1", wait=False)

    def extend_timeout(self, seconds: float) -> None:
        """Ask for so much time, from now on, for the step that the service is at."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", wait=False)

    def store(self, name: str, descriptors: Sequence[int]) -> None:
        """Leave copies of listening sockets with the manager, for the next start of the service.

        They come back among the sockets that it passes, under this name. FDPOLL=0: whatever happens
        to them, they stay. Needs FileDescriptorStoreMax=; without it nothing is stored.
        """
        lines = ("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0")
        self._send(*lines, descriptors=descriptors)

    def forget(self, name: str) -> None:
        """Have the manager drop all copies of this name."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def barrier(self) -> None:
        """Wait until the manager has read all that was said; a second at the most."""
        if self._sock is None:
            return
        reader, writer = os.pipe()
        try:
            self._send("BARRIER=1", descriptors=(writer,))
            os.close(writer)
            poll = select.poll()
            poll.register(reader, 0)
            poll.poll(_SEND_TIMEOUT * 1000)
        finally:
            os.close(reader)

    def close(self) -> None:
        """Say no more."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _send(self, *lines: str, wait: bool = True, descriptors: Sequence[int] = ()) -> bool:
        # Only what happens once is worth waiting for: the rest is said again.
        if self._sock is None:
            return True
        try:
            data = "\n".join(lines).encode()
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            flags = 0 if wait else socket.MSG_DONTWAIT
            self._sock.sendmsg([data], rights if descriptors else [], flags, self._address)
        except BlockingIOError:
            if wait:
                self._lost(lines[0], "it does not read")
            return False
        except OSError as error:
            self._lost(lines[0], error.strerror)
        else:
            self._missing = False
        return True

    def _lost(self, what: str, why: str | None) -> None:
        # Once: a manager that has gone would be missed several times a second.
        level = logging.DEBUG if self._missing else logging.WARNING
        logger.log(level, "the service manager was not told %s: %s", what, why)
        self._missing = True


def _status(text: str) -> str:
    line = " ".join(text.split()).encode()
    if len(line) > _STATUS_LIMIT:
        line = line[:_STATUS_LIMIT] + "…".encode()
    return "STATUS=" + line.decode(errors="ignore")


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    # WATCHDOG_PID may name another process of the service, whose business the pings are then.
    with contextlib.suppress(ValueError):
        interval = int(environ.get("WATCHDOG_USEC", "0"))
        pid = int(environ.get("WATCHDOG_PID") or os.getpid())
        if interval > 0 and pid == os.getpid():
            return interval / 1e6
    return None


def _bound_sending(sock: socket.socket, seconds: float) -> None:
    """Let a blocking send wait for so long at the most, and raise BlockingIOError then.

    Python's own timeout would poll for a datagram socket that, not being connected, is always writable, and
    so spin: whether the receiver has room is known to the send alone. socket(7), SO_SNDTIMEO
    """
    whole = int(seconds)
    value = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
