"""The journal's native protocol: one datagram of fields for each entry.

Version 252 takes several entries in a datagram, with an empty line between them; 257 takes the first.

systemd-python implements it, too, but the zygote may run in an interpreter that has no systemd-python.
https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

import array
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Mapping

ADDRESS = "/run/systemd/journal/socket"


_SEND_TIMEOUT = 1.0
"""Seconds that a send waits at most."""
_poll = select.poll  # the original: an application may replace it
_SEND_BUFFER = 8 << 20
"""SO_SNDBUF, as libsystemd sets it; net.core.wmem_max limits it."""


class Journal:
    """Sends entries; raises OSError when the journal does not take one.

    ``wait``: a send waits for a journal that is behind, as libsystemd's does, but for a second at most; after
    such a timeout no send waits until the journal has taken an entry.
    """

    def __init__(self, address: str | None = None, *, wait: bool = True) -> None:
        self._address = address or ADDRESS
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._waits = wait
        self._reads = True
        """The last send did not time out."""

    def wait(self) -> None:
        """Let sends wait from now on, as with ``wait=True``."""
        self._waits = self._reads = True

    def send(self, fields: Mapping[str, object]) -> None:
        """Send one entry; names are upper-case, values any text."""
        self.send_encoded(encoded(fields))

    def send_encoded(self, data: bytes) -> None:
        """Send one entry as `encoded` returns it."""
        deadline = 0.0
        while True:
            try:
                self._try(data)
            except BlockingIOError:
                # Not by SO_SNDTIMEO, which starts again after each signal that is handled meanwhile.
                now = time.monotonic()
                deadline = deadline or now + _SEND_TIMEOUT
                if not (self._waits and self._reads and self._wait_for_room(deadline - now)):
                    self._reads = False
                    raise
            else:
                self._reads = True
                return

    def _wait_for_room(self, seconds: float) -> bool:
        if seconds <= 0:
            return False
        poll = _poll()
        poll.register(self._sock, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def _try(self, data: bytes) -> None:
        try:
            self._send(data)
        except OSError as error:
            if error.errno not in {errno.EMSGSIZE, errno.ENOBUFS}:
                raise
            self._send_by_memory(data)

    def _send(self, data: bytes) -> None:
        # Connected: the path is then not looked up for each entry. systemd keeps the socket when journald
        # restarts; any other owner may create a new one, to which this connects again.
        try:
            self._sock.send(data, socket.MSG_DONTWAIT)
        except OSError as error:
            if error.errno not in {errno.ENOTCONN, errno.ECONNREFUSED, errno.EDESTADDRREQ}:
                raise
            self._sock.connect(self._address)
            self._sock.send(data, socket.MSG_DONTWAIT)

    def _send_by_memory(self, data: bytes) -> None:
        # Too large for a datagram: the journal reads it from a memory file, unsealed since v252.
        descriptor = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            import fcntl  # noqa: PLC0415 - needed for large entries only

            fcntl.fcntl(
                descriptor,
                fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL,
            )
            rights = array.array("i", [descriptor])
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            self._sock.sendmsg([b""], ancillary, socket.MSG_DONTWAIT, self._address)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


def encoded(fields: Mapping[str, object]) -> bytes:
    """Return fields in the form in which they are sent; concatenated results are one entry."""
    return b"".join(_field(name, str(value)) for name, value in fields.items())


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"


def stderr_is_journal(stream: str, descriptor: int = 2) -> bool:
    """Return whether the descriptor is the stream that $JOURNAL_STREAM names, systemd.exec(5)."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"
