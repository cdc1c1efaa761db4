"""Changes of the files in directories, by inotify(7)."""

import contextlib
import os
import struct
from collections.abc import Iterator

from msgspec import Struct

from preforkd.linux.libc import LIBC, checked

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x8, 0x40, 0x80
_CREATE, _DELETE, _OVERFLOW, _IGNORED = 0x100, 0x200, 0x4000, 0x8000
_ONLYDIR, _EXCL_UNLINK, _ISDIR = 0x1000000, 0x4000000, 0x40000000
_CHANGES = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_HEAD = struct.Struct("iIII")
"""struct inotify_event, without the name."""
_SIZE = 65536


class Change(Struct, frozen=True):
    """A file that was written and closed, moved or removed, or a directory that was made, moved or removed.

    ``name`` is its name in the watched directory ``watch``; empty: events were lost.
    """

    watch: int
    name: str
    is_directory: bool


class Inotify:
    """Watches directories, without their subdirectories; ``fileno`` is readable on a change."""

    def __init__(self) -> None:
        """Make an instance. Raises OSError; EMFILE: fs.inotify.max_user_instances is exceeded."""
        self._descriptor = checked(LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def fileno(self) -> int:
        """Return the descriptor to wait on for reading."""
        return self._descriptor

    def add(self, directory: str) -> int:
        """Watch a directory; return the number of the watch, the same again for the same directory.

        Raises OSError; ENOSPC: fs.inotify.max_user_watches is exceeded.
        """
        mask = _CHANGES | _ONLYDIR | _EXCL_UNLINK
        return checked(LIBC.inotify_add_watch(self._descriptor, os.fsencode(directory), mask))

    def read(self) -> Iterator[Change]:
        """Yield the changes since the last call."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._descriptor, _SIZE)
        while data:
            watch, mask, _, length = _HEAD.unpack_from(data)
            name, data = data[_HEAD.size : _HEAD.size + length], data[_HEAD.size + length :]
            created_file = mask & _CREATE and not mask & _ISDIR  # it will be written and closed
            if not (created_file or mask & _IGNORED):
                text = "" if mask & _OVERFLOW else os.fsdecode(name.rstrip(b"\0"))
                yield Change(watch, text, bool(mask & _ISDIR))

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)
