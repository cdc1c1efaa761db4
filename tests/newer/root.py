"""A Debian testing in a folder, whose interpreters run these tests: debootstrap(8), chroot(8)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.systemd.machine import MIRROR, TREE, run

SUITE = "testing"
TESTS = "/srv/preforkd"
"""Where the tree is in the root."""
MODULES = "msgspec yaml websockets django flask gevent eventlet hypothesis pytest pytest-xdist"
"""Of Debian, with a binary for each CPython that it has; preforkd's, and the tests'."""
PROGRAMS = "python3 python3-venv procps strace netcat-openbsd openssl ca-certificates"
_APT = (
    # Debian's mirror may be a copy that is some weeks old.
    "apt-get -q -o Acquire::Check-Valid-Until=false"
)
_MOUNTS = """
mount --make-rprivate /
for name in proc sys dev; do mount --rbind /$name "$ROOT/$name"; done
mount --bind "$TREE" "$ROOT$TESTS"
exec chroot "$ROOT" "$@"
"""


def missing() -> str:
    """Return why no root can be entered here; empty if one can."""
    if os.geteuid() != 0:
        return "debootstrap and chroot need root"
    if shutil.which("debootstrap") is None:
        return "debootstrap is not installed"
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True)
    return f"no mount namespace can be made here: {done.stderr.strip()}" if done.returncode else ""


class Root:
    """The root. ``python3`` there is the newest that testing has as its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{SUITE}-root"
        if self.path.exists():
            return  # made by an earlier run: $PREFORKD_IMAGES
        base = folder / f"{SUITE}-base"
        run("debootstrap", "--variant=minbase", SUITE, str(base), MIRROR)
        (base / TESTS.lstrip("/")).mkdir()
        shutil.copy("/etc/resolv.conf", base / "etc/resolv.conf")
        trusted = base / "usr/local/share/ca-certificates"
        trusted.mkdir(parents=True, exist_ok=True)
        for certificate in Path("/usr/local/share/ca-certificates").rglob("*.crt"):
            shutil.copy(certificate, trusted)
        base.rename(self.path)
        modules = " ".join(f"python3-{name}" for name in MODULES.split())
        self.inside(f"{_APT} update && {_APT} install -y --no-install-recommends {PROGRAMS}")
        self.inside(f"{_APT} install -y --no-install-recommends {modules}")
        # Debian's FastAPI brings uvloop, which would replace the event loop of all tests.
        self._make_environment("python3", "httptools fastapi")

    def _make_environment(self, python: str, packages: str) -> None:
        self.inside(f"{python} -m venv --system-site-packages /srv/{python}")
        self.inside(f"/srv/{python}/bin/pip install -q --only-binary :all: {packages}")

    def install(self, python: str) -> None:
        """Install another interpreter of the suite beside its own; skip the test if it has none."""
        if (self.path / "srv" / python).exists():
            return
        if self.call(f"apt-cache show {python}-venv").returncode:
            pytest.skip(f"Debian {SUITE} has no {python}")
        self.inside(f"{_APT} install -y --no-install-recommends {python} {python}-venv")
        self._make_environment(python, "httptools")

    def call(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script in the root, where the tree is mounted; return what became of it."""
        return subprocess.run(
            ["unshare", "--mount", "sh", "-ec", _MOUNTS, "sh", "sh", "-ec", script],
            env={
                "HOME": "/root",
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG": "C.UTF-8",
                "DEBIAN_FRONTEND": "noninteractive",
                "PIP_CERT": "/etc/ssl/certs/ca-certificates.crt",
                "ROOT": str(self.path),
                "TREE": str(TREE),
                "TESTS": TESTS,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def inside(self, script: str) -> str:
        """Run a script in the root that must succeed; return its output."""
        done = self.call(script)
        assert done.returncode == 0, f"{script}: {done.stdout[-4000:]}"
        return done.stdout

    def test(self, python: str, *arguments: str) -> None:
        """Run pytest in /srv/PYTHON; its failures are those of the test that calls this."""
        command = f"cd {TESTS} && exec /srv/{python}/bin/python -m pytest -q -p no:cacheprovider"
        quoted = " ".join(f"'{each}'" for each in arguments)
        done = self.call(f"PATH=/srv/{python}/bin:$PATH; {command} {quoted}")
        assert done.returncode == 0, done.stdout[-8000:]
        (passed,) = re.findall(r"^(?:=+ )?.*?(\d+) passed", done.stdout, re.MULTILINE)
        print(f"{self.inside(f'/srv/{python}/bin/python --version').strip()}: {passed} passed")
