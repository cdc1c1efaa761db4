"""Reload when a file of the application or the configuration changes: ``app.watch``, for development.

It runs in the master's loop, which imports this module only with ``app.watch``. What editors, tools and
the running application write (``_IGNORED``, hidden directories, virtual environments) is not a change.
"""

import errno
import fnmatch
import glob
import importlib.util
import logging
import os
import re
from collections.abc import Callable

from preforkd.linux.inotify import Change, Inotify
from preforkd.loop import Call, Loop

logger = logging.getLogger("preforkd.master")

_QUIET = 0.05
"""Seconds without a further change after which a reload is requested: tools write several files."""
_MOST_DIRECTORIES = 10_000
_HINTS = {
    errno.ENOSPC: "; raise fs.inotify.max_user_watches (sysctl)",
    errno.EMFILE: "; raise fs.inotify.max_user_instances (sysctl)",
}
_SHOWN = 3
"""Number of changed files that are logged."""
_IGNORED_DIRECTORIES = ".* __pycache__ node_modules *.egg-info htmlcov"
_IGNORED_FILES = (
    "*.py[cod] *.sw[a-z] *~ .#* #*# 4913 *.tmp *.bak *.orig *.rej *.part ___jb_* *___jb_* .goutputstream-* "
    ".nfs* .coverage* .DS_Store *.log *.pid *.sock *.db *.db-* *.sqlite* *-journal"
)


def _pattern(names: str) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, names.split())))


_directories, _files = _pattern(_IGNORED_DIRECTORIES), _pattern(_IGNORED_FILES)


class FileWatch:
    """Calls ``request`` after a change; with True if a file of the application has changed."""

    def __init__(self, loop: Loop, request: Callable[[bool], None]) -> None:
        self._loop = loop
        self._request = request
        self._wanted: tuple[str, str | None] | None = None
        self._inotify: Inotify | None = None
        self._directories: dict[int, str] = {}
        """The watched directories of the application, by the number of the watch."""
        self._configuration = (-1, "")
        """The watch of the configuration's directory, and the name of the file."""
        self._changed: dict[str, bool] = {}
        """Changed files, and whether each is the application's."""
        self._due: Call | None = None

    def update(self, directory: str | None, configuration: str | None) -> None:
        """Watch the files below a directory, and the configuration's file. None: none.

        A directory or file that cannot be watched is logged.
        """
        wanted = (os.path.realpath(directory), configuration) if directory else None
        if wanted == self._wanted:
            return
        self.close()
        self._wanted = wanted
        if wanted is None:
            return
        root, path = wanted
        try:
            self._inotify = Inotify()
            if path is not None:
                folder, name = os.path.split(path)
                self._configuration = (self._inotify.add(folder), name)
            self._watch_tree(root)
        except OSError as error:
            hint = _HINTS.get(error.errno or 0, "")
            logger.warning("app.watch: not all files are watched: %s%s", error.strerror, hint)
        if self._inotify is not None:
            self._loop.add_reader(self._inotify.fileno(), self._read, self._inotify)
            also = f" and {path}" if path else ""
            logger.info("app.watch: a change below %s%s reloads", root, also)

    def close(self) -> None:
        """Stop watching."""
        if self._inotify is not None:
            self._loop.remove_reader(self._inotify.fileno())
            self._inotify.close()
        if self._due is not None:
            self._due.cancel()
        self._inotify, self._due, self._wanted = None, None, None
        self._directories, self._changed, self._configuration = {}, {}, (-1, "")

    def _watch_tree(self, root: str) -> None:
        assert self._inotify is not None
        for path, directories, names in os.walk(root):
            if len(self._directories) >= _MOST_DIRECTORIES:
                text = "app.watch: more than %d directories below %s; the others are not watched"
                logger.warning(text, _MOST_DIRECTORIES, root)
                return
            if "pyvenv.cfg" in names:  # a virtual environment
                directories.clear()
                continue
            self._directories[self._inotify.add(path)] = path
            directories[:] = [name for name in directories if not _directories.match(name)]

    def _read(self, inotify: Inotify) -> None:
        for change in inotify.read():
            self._note(change)
        if self._changed:
            if self._due is not None:
                self._due.cancel()
            self._due = self._loop.call_later(_QUIET, self._settled)

    def _note(self, change: Change) -> None:
        path = os.path.join(self._directories.get(change.watch, ""), change.name)
        if (change.watch, change.name) == self._configuration:
            self._changed[change.name] = False
        elif change.watch not in self._directories and change.name:
            pass  # another file beside the configuration
        elif not change.is_directory:
            if not _files.match(change.name):
                self._changed[path or "(events were lost)"] = True
        elif not _directories.match(change.name):
            self._changed[path] = True
            self._watch_new(path)

    def _watch_new(self, path: str) -> None:
        try:
            self._watch_tree(path)
        except OSError as error:
            logger.warning("app.watch: %s is not watched: %s", path, error.strerror)

    def _settled(self) -> None:
        changed, self._changed, self._due = self._changed, {}, None
        more = len(changed) - _SHOWN
        names = ", ".join(list(changed)[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        logger.info("app.watch: %s changed: reloading", names)
        for path in changed:
            _remove_bytecode(path)
        self._request(any(changed.values()))


def _remove_bytecode(path: str) -> None:
    # CPython takes compiled code for that of a source if size and second agree: of the previous save as well.
    stem, suffix = os.path.splitext(os.path.basename(path))
    if suffix != ".py":
        return
    folder = os.path.dirname(importlib.util.cache_from_source(path))
    for compiled in glob.glob(glob.escape(os.path.join(folder, stem)) + ".*.pyc"):
        try:
            os.unlink(compiled)
        except OSError as error:
            logger.warning("app.watch: cannot remove %s: %s", compiled, error.strerror)
