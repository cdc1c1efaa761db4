"""Notifications to the service manager: datagrams to $NOTIFY_SOCKET.

sd_notify(3), systemd.service(5)

systemd-python's function reads the socket's name from the environment, from which preforkd removes it before the
application is loaded; the protocol is one datagram of lines.
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
"""Bytes of a status line: systemd ignores a datagram of more than 4096 bytes."""
_SEND_TIMEOUT = 1.0
"""Seconds for which a manager that does not read may block a send; then the message is lost."""


class Notifier:
    """Sends notifications, if there is a manager; never raises, logs a message that is lost."""

    def __init__(self, address: str | None = None, watchdog_interval: float | None = None) -> None:
        self.watchdog_interval = watchdog_interval
        """Longest interval of watchdog pings in seconds; None if the manager expects none."""
        self._sock: socket.socket | None = None
        if address:
            self._address = "\0" + address[1:] if address.startswith("@") else address
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            _bound_sending(self._sock, _SEND_TIMEOUT)
        self._failed = False
        """The last message was lost, which has been logged."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Notifier":
        """Return a notifier for $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        return cls(address, _watchdog_interval(environ))

    @property
    def active(self) -> bool:
        """Whether there is a manager."""
        return self._sock is not None

    def ready(self, status: str) -> None:
        """Notify that the start or the reload is complete."""
        self._send("READY=1", _status(status))

    def reloading(self, status: str) -> None:
        """Notify that a reload has begun, with the time, which Type=notify-reload requires."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", _status(status))

    def stopping(self, status: str) -> None:
        """Notify that the service is stopping."""
        self._send("STOPPING=1", _status(status))

    def status(self, text: str) -> bool:
        """Send the status line; return False if the manager's socket is full."""
        return self._send(_status(text), wait=False)

    def watchdog(self) -> None:
        """Send the watchdog ping."""
        self._send("WATCHDOG=1", wait=False)

    def extend_timeout(self, seconds: float) -> None:
        """Request this many seconds from now for the start, reload or stop in progress."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", wait=False)

    def store(self, name: str, descriptors: Sequence[int]) -> None:
        """Store duplicates of listening sockets with the manager, for the next start of the service.

        It passes them under this name. FDPOLL=0: the manager does not remove them on an error event. Needs
        FileDescriptorStoreMax=; without it the manager stores nothing.
        """
        lines = ("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0")
        self._send(*lines, descriptors=descriptors)

    def forget(self, name: str) -> None:
        """Remove the stored sockets of this name."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def barrier(self) -> None:
        """Wait until the manager has read all notifications; a second at most."""
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
        """Close the socket; later calls do nothing."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _send(self, *lines: str, wait: bool = True, descriptors: Sequence[int] = ()) -> bool:
        # Waits only for notifications that are sent once: the others are repeated.
        if self._sock is None:
            return True
        try:
            data = "\n".join(lines).encode()
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            flags = 0 if wait else socket.MSG_DONTWAIT
            self._sock.sendmsg([data], rights if descriptors else [], flags, self._address)
        except BlockingIOError:
            if wait:
                self._log_lost(lines[0], "its socket is full")
            return False
        except OSError as error:
            self._log_lost(lines[0], error.strerror)
        else:
            self._failed = False
        return True

    def _log_lost(self, what: str, why: str | None) -> None:
        # Once: without a manager every message is lost, several in a second.
        level = logging.DEBUG if self._failed else logging.WARNING
        logger.log(level, "cannot notify the service manager of %s: %s", what, why)
        self._failed = True


def _status(text: str) -> str:
    line = " ".join(text.split()).encode()
    if len(line) > _STATUS_LIMIT:
        line = line[:_STATUS_LIMIT] + "…".encode()
    return "STATUS=" + line.decode(errors="ignore")


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    # WATCHDOG_PID may name another process of the service, which sends the pings then.
    with contextlib.suppress(ValueError):
        interval = int(environ.get("WATCHDOG_USEC", "0"))
        pid = int(environ.get("WATCHDOG_PID") or os.getpid())
        if interval > 0 and pid == os.getpid():
            return interval / 1e6
    return None


def _bound_sending(sock: socket.socket, seconds: float) -> None:
    """Limit a blocking send to ``seconds``; it raises BlockingIOError then.

    Python's own timeout polls, and an unconnected datagram socket is always writable: it would spin. Only
    the send itself blocks on the receiver's queue. socket(7), SO_SNDTIMEO
    """
    whole = int(seconds)
    value = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
