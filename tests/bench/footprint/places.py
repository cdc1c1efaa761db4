"""Where it is measured: this Debian, and another one in a root of its own, with all that it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

from .servers import TREE

PACKAGES = [
    *("python3", "python3-venv", "ca-certificates"),
    *("uwsgi-core", "uwsgi-plugin-python3", "wrk"),
]
PEERS = ["gunicorn", "django", "numpy", "pandas"]
DRAWING = ["matplotlib"]
TO_BE_CONTINUED = 75
"""Exit status of memory.py when it was to stop before all was measured."""
MIRROR = os.environ.get("MIRROR", "http://deb.debian.org/debian")


def cache() -> Path:
    """Return the folder that keeps what was made and measured."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "preforkd-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def codename() -> str:
    """Return the name of this Debian."""
    lines = Path("/etc/os-release").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get("VERSION_CODENAME", fields["ID"]).strip('"')


def run(*command: str, **how) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout[-4000:]}")
    return done.stdout


def missing_packages() -> list[str]:
    query = ("dpkg-query", "-W", "-f", "${db:Status-Abbrev}")
    return [
        name
        for name in PACKAGES
        if not subprocess.run([*query, name], capture_output=True, text=True).stdout.startswith(
            "ii"
        )
    ]


def environment(folder: Path) -> Path:
    """Install what is measured on this Debian; return the interpreter.

    The environment is made in this folder, once.
    """
    if missing := missing_packages():
        if os.geteuid() != 0:
            raise SystemExit(f"as root, first: apt-get install {' '.join(missing)}")
        variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "-q", "update", env=variables)
        run(
            *("apt-get", "-q", "install", "-y", "--no-install-recommends", *missing),
            env=variables,
        )
    venv = folder / "venv"
    python = venv / "bin/python"
    project = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    needed = project["dependencies"]
    wanted = "\n".join([str(TREE), *needed, *PEERS, *DRAWING])
    stamp = venv / "stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        run("/usr/bin/python3", "-m", "venv", "--clear", str(venv))
        run(str(python), "-m", "pip", "install", "-q", *needed, *PEERS, *DRAWING)
        (site,) = (venv / "lib").glob("python3*/site-packages")
        (site / "preforkd-tree.pth").write_text(f"{TREE}\n")
        stamp.write_text(wanted)
    return python


class Root:
    """A Debian of another suite in a folder, made by debootstrap(8); entered by systemd-nspawn(1)."""

    def __init__(self, suite: str) -> None:
        self.path = cache() / suite
        if (self.path / "made").exists():
            return
        if os.geteuid() != 0:
            raise SystemExit(f"making a root with {suite} needs root")
        shutil.rmtree(self.path, ignore_errors=True)
        run("debootstrap", "--variant=minbase", suite, str(self.path), MIRROR)
        shutil.copy("/etc/resolv.conf", self.path / "etc/resolv.conf")
        trusted = self.path / "usr/local/share/ca-certificates"
        trusted.mkdir(parents=True, exist_ok=True)
        for certificate in Path("/usr/local/share/ca-certificates").rglob("*.crt"):
            shutil.copy(certificate, trusted)
        (self.path / "srv/preforkd").mkdir()
        (self.path / "srv/cache/preforkd-bench").mkdir(parents=True)
        script = "apt-get -q update; apt-get -q install -y --no-install-recommends "
        self.enter("sh", "-ec", script + " ".join(PACKAGES))
        (self.path / "made").touch()

    def enter(self, *command: str) -> int:
        """Run a command inside, with this tree and this cache; return its status: 0 or 75."""
        done = subprocess.run(
            [
                *("systemd-nspawn", "-q", "-D", str(self.path), "--register=no", "--keep-unit"),
                *("--console=pipe", "--setenv=DEBIAN_FRONTEND=noninteractive"),
                *(
                    "--setenv=PIP_CERT=/etc/ssl/certs/ca-certificates.crt",
                    "--setenv=LC_ALL=C.UTF-8",
                ),
                *("--setenv=XDG_CACHE_HOME=/srv/cache", f"--bind={TREE}:/srv/preforkd"),
                *(f"--bind={cache()}:/srv/cache/preforkd-bench", "--chdir=/srv/preforkd"),
                *command,
            ],
            stdin=subprocess.DEVNULL,
        )
        if done.returncode not in {0, TO_BE_CONTINUED}:
            raise SystemExit(f"in {self.path}: {' '.join(command)}: status {done.returncode}")
        return done.returncode
