"""Parts of files in a connection's output: files of the application, and the spool of an answer."""

import errno
import logging
import os
import socket
import tempfile
from dataclasses import dataclass
from typing import IO

from preforkd.http.bounds import Budget
from preforkd.worker.wsgi.response import ClientGoneError
from preforkd.worker.wsgi.sockets import Socket, as_client_gone

_FILE_BLOCK = 1 << 20
_OF_FILES = {errno.EIO, errno.ESTALE, errno.ENODATA, errno.EINVAL}
"""Errors of sendfile(2) that concern the file, not the client."""

logger = logging.getLogger("preforkd.worker")


@dataclass(slots=True)
class FilePart:
    """The part of a file that is not sent yet."""

    file: IO[bytes]
    """A reference, so that its descriptor stays open."""
    offset: int
    count: int

    def send(self, sock: Socket) -> None:
        """Send without blocking as much as the socket takes: by sendfile(2), or over TLS.

        Raises ClientGoneError, also when the file is shorter than the part.
        """
        try:
            descriptor = self.file.fileno()
        except ValueError:
            raise self._truncated("the application closed it") from None
        try:
            if isinstance(sock, socket.socket):
                self._send_plain(sock.fileno(), descriptor)
            else:
                self._send_secure(sock, descriptor)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno in _OF_FILES:
                raise self._truncated(str(error)) from error
            raise as_client_gone(error) from None

    def _send_plain(self, to: int, descriptor: int) -> None:
        os.set_blocking(to, False)  # sendfile(2) has no flag for it
        while self.count:
            self._sent(os.sendfile(to, descriptor, self.offset, self.count))

    def _send_secure(self, sock: Socket, descriptor: int) -> None:
        while self.count:
            try:
                block = os.pread(descriptor, min(_FILE_BLOCK, self.count), self.offset)
            except OSError as error:
                raise self._truncated(str(error)) from error
            self._sent(sock.send(block) if block else 0)

    def _sent(self, count: int) -> None:
        # Each step is counted, as a later one may fail.
        if not count:
            raise self._truncated("it was truncated while it was sent")
        self.offset += count
        self.count -= count

    def _truncated(self, why: str) -> ClientGoneError:
        # The connection is cut off, as the length was announced; the client is not to blame.
        try:
            name = os.readlink(f"/proc/self/fd/{self.file.fileno()}")
        except (OSError, ValueError):
            name = "a file"
        logger.warning("%s was sent incompletely, %d bytes are missing: %s", name, self.count, why)
        return ClientGoneError(f"{name}: {why}")


class AnswerFile:
    """The spool of one answer: an unnamed file with the parts that are not kept in memory."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - see close
        self.part = FilePart(self._file, 0, 0)
        """The part of the file that is not sent yet."""

    @property
    def size(self) -> int:
        """Bytes in the file, sent ones included."""
        return self.part.offset + self.part.count

    def append(self, data: bytes | memoryview) -> None:
        """Append data. Raises OSError, and nothing of it is kept then."""
        part, size = self.part, len(data)
        if not self._budget.take("files", size):
            raise OSError(errno.ENOSPC, "the answers of this worker use all of their spool")
        try:
            rest, end = memoryview(data), self.size
            while rest:
                done = os.pwrite(part.file.fileno(), rest, end)
                rest, end = rest[done:], end + done
        except BaseException:
            self._budget.give_back("files", size)
            raise
        part.count += size

    def close(self) -> None:
        """Close the file and give its bytes back to the budget."""
        self._budget.give_back("files", self.size)
        self._file.close()
