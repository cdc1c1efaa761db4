"""Interpreters whose heap can be made immortal: this one, or others that are installed."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import preforkd

TREE = Path(preforkd.__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TREE)}
_STANDIN = f"import sys; sys.path.append({str(Path(__file__).with_name('standin'))!r})\n"
"""Behind all that the interpreter has: its own msgspec comes first."""
_REFUSAL = "from preforkd.zygote import immortal; print(immortal.unsupported_reason())"


def run(python: str, code: str, *arguments: str) -> str:
    """Run code in this interpreter, with this preforkd; return what it prints."""
    done = subprocess.run(
        [python, "-c", _STANDIN + code, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def suitable() -> list[str]:
    """Return the interpreters, one of each version."""
    named = (
        shutil.which(name) for name in ("python3.12", "python3.13", "python3.14", "python3.15")
    )
    kept = Path.home().glob(".pyenv/versions/3.1[2-5].*/bin/python3")
    found: dict[str, str] = {}
    for python in (sys.executable, *filter(None, named), *map(str, kept)):
        code = _STANDIN + "print('%d.%d' % sys.version_info[:2]);" + _REFUSAL
        done = subprocess.run([python, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        if done.returncode == 0 and lines[1:] == [""]:
            found.setdefault(lines[0], python)
    return list(found.values())
