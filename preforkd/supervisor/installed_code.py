"""Detect that the installed files of preforkd have changed since this process was started.

A zygote runs the code that is on the disk. If that is no longer the code of the master and they do not fit
together, neither the application nor the configuration is to blame.
"""

import os
import zlib

import preforkd

HINT = "preforkd itself was changed on disk since this service was started: restart the service"


def changed() -> bool:
    """Return whether a file of the package was changed, added or removed since the start."""
    return _state() != _AT_START


def _state() -> int:
    state = 0
    for folder, folders, names in os.walk(os.path.dirname(os.path.realpath(preforkd.__file__))):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = os.path.join(folder, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            about = f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
            state = zlib.crc32(about.encode(errors="surrogateescape"), state)
    return state


_AT_START = _state()
