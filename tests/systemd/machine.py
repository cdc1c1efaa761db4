"""A Debian with a real systemd as PID 1, in which the .deb is installed: systemd-nspawn(1)."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import preforkd

TREE = Path(preforkd.__file__).resolve().parent.parent
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-yaml,python3-venv,procps,curl"
PACKAGE = "/srv/preforkd.deb"
_numbers = itertools.count(1)
MIRROR = os.environ.get("MIRROR", "http://deb.debian.org/debian")


@functools.cache
def missing() -> str:
    """Return why no machine can be booted here; empty if one can."""
    if os.geteuid() != 0:
        return "booting a systemd needs root"
    for program in ("debootstrap", "systemd-nspawn", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    # A plain chroot, or a container, has not the namespaces that a machine needs.
    namespaces = ("--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--propagation=slave")
    done = subprocess.run(["unshare", *namespaces, "true"], capture_output=True, text=True)
    error = done.stderr if done.returncode else _try_container()
    return f"no machine can be booted here: {error.strip()}" if error else ""


def _try_container() -> str:
    """Run a program with systemd-nspawn, in the /usr that we have; return what it says when that fails."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("etc", "usr"):
            (root / name).mkdir()
        shutil.copy("/etc/os-release", root / "etc/os-release")
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        done = subprocess.run(
            [
                *("systemd-nspawn", "-q", "-D", folder, "--bind-ro=/usr", "--private-network"),
                *("--register=no", "--keep-unit", "--console=pipe", "true"),
            ],
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    return done.stderr or f"systemd-nspawn ends with {done.returncode}" if done.returncode else ""


def unmade(suite: str, folder: Path) -> str:
    """Return why no image of this suite can be made in a folder; empty if one can, or is there."""
    if (folder / f"{suite}-root").exists():
        return ""
    try:
        # debootstrap makes device nodes, which a container may not, or which its file system ignores.
        with tempfile.TemporaryDirectory(dir=folder) as probe:
            null = Path(probe) / "null"
            os.mknod(null, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
            null.read_bytes()
        with urllib.request.urlopen(f"{MIRROR}/dists/{suite}/InRelease", timeout=20):
            return ""
    except OSError as error:
        return f"no image of {suite} can be made here ({folder}, {MIRROR}): {error}"


def run(*command: str, **how) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-4000:]}"
    return done.stdout


class Image:
    """A root with the package and a Django site, from which machines are copied."""

    def __init__(self, suite: str, folder: Path) -> None:
        self.suite = suite
        self.root = folder / f"{suite}-root"
        if self.root.exists():
            return  # made by an earlier run: $PREFORKD_IMAGES
        base = folder / f"{suite}-base"
        run("debootstrap", "--variant=minbase", suite, str(base), MIRROR)
        run(
            str(TREE / "packaging/build-deb"),
            suite,
            str(folder / "dist"),
            env={**os.environ, "ROOT": str(base), "TMPDIR": str(folder)},
        )
        (package,) = (folder / "dist" / suite).glob("preforkd_*.deb")
        base.rename(self.root)
        self._install(package)

    def _install(self, package: Path) -> None:
        root = self.root
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        trusted = root / "usr/local/share/ca-certificates"
        trusted.mkdir(parents=True, exist_ok=True)
        for certificate in Path("/usr/local/share/ca-certificates").rglob("*.crt"):
            shutil.copy(certificate, trusted)
        self.inside("apt-get -q update")
        self.inside(
            "apt-get -q install -y --no-install-recommends ca-certificates "
            + PACKAGES.replace(",", " ")
        )
        shutil.copy(package, root / PACKAGE.lstrip("/"))
        self.inside(f"apt-get -q install -y {PACKAGE}")
        self.inside("python3 -m venv /srv/site/.venv")
        self.inside("/srv/site/.venv/bin/pip install -q django flask")
        self.inside("cd /srv/site && .venv/bin/django-admin startproject mysite .")
        (root / "srv/load.py").write_text((TREE / "tests/process/load.py").read_text())
        (root / "srv/echo.py").write_text((TREE / "tests/process/echo.py").read_text())

    def inside(self, script: str) -> str:
        return run(
            *("systemd-nspawn", "-q", "-D", str(self.root), "--register=no", "--keep-unit"),
            *("--console=pipe", "--setenv=DEBIAN_FRONTEND=noninteractive"),
            "--setenv=PIP_CERT=/etc/ssl/certs/ca-certificates.crt",
            *("sh", "-ec", script),
            stdin=subprocess.DEVNULL,
        )


def own_cgroup(name: str) -> Path | None:
    """Return a new control group of version 2 for a machine; None where none can be made.

    Machines that share one fight over each other's services: every systemd takes what it finds there
    for its own.
    """
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    root = next((place for _, place, kind, *_ in mounts if kind == "cgroup2"), None)
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    ours = next((line[3:] for line in lines if line.startswith("0::")), None)
    if root is None or ours is None:
        return None
    group = Path(root) / ours.lstrip("/") / name
    try:
        group.mkdir(exist_ok=True)
    except OSError:
        return None
    return group


def remove_cgroup(group: Path) -> None:
    """Remove a control group with all below it, as far as nobody is in it."""
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


class Machine:
    """A machine that is booted from a copy of the image."""

    def __init__(
        self, image: Image, folder: Path, prepare: Callable[[Path], None] = lambda _root: None
    ) -> None:
        self.suite = image.suite
        self.root = folder / "root"
        run("cp", "-a", str(image.root), str(self.root))
        prepare(self.root)
        self._cgroup = own_cgroup(f"preforkd-machine-{os.getpid()}-{next(_numbers)}")
        enter = f"echo $$ > {self._cgroup}/cgroup.procs; " if self._cgroup else ""
        with (folder / "console").open("wb") as console:
            self._nspawn = subprocess.Popen(
                [
                    *("sh", "-c", enter + 'exec "$@"', "sh"),
                    *("systemd-nspawn", "-q", "-D", str(self.root), "-b", "--private-network"),
                    *("--register=no", "--keep-unit", "--console=passive"),
                ],
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        try:
            self._wait_until_booted()
        except BaseException:
            self.stop()
            raise

    def _wait_until_booted(self) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            assert self._nspawn.poll() is None, (self.root.parent / "console").read_text()
            children = Path(
                f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children"
            ).read_text()
            if children:
                self._leader = children.split()[0]
                if self.call("systemctl is-system-running --wait").stdout.strip() in {
                    "running",
                    "degraded",
                }:
                    return
        raise AssertionError(
            "the machine did not boot: " + (self.root.parent / "console").read_text()
        )

    def _enter(self) -> list[str]:
        variables = (f"PATH={PATH}", "HOME=/root", "LC_ALL=C.UTF-8")
        return ["nsenter", "-t", self._leader, "-a", "env", "-i", *variables]

    def call(self, script: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a script inside; whatever comes of it."""
        return subprocess.run(
            [*self._enter(), "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def run(self, script: str, timeout: float = 120) -> str:
        """Run a script inside that must succeed; return its output."""
        done = self.call(script, timeout)
        assert done.returncode == 0, f"{script}: {done.stdout}\n{self.journal()}"
        return done.stdout

    def journal(self, arguments: str = "-u preforkd -n 60") -> str:
        return self.call(f"journalctl --no-pager -o short-precise {arguments}").stdout

    def show(self, unit: str, name: str) -> str:
        return self.run(f"systemctl show {unit} -p {name} --value").strip()

    def until(self, script: str, wanted: str, timeout: float = 40) -> None:
        """Wait until a script's output contains this."""
        deadline = time.monotonic() + timeout
        while wanted not in (seen := self.call(script).stdout):
            assert time.monotonic() < deadline, f"{script}: {seen}\n{self.journal()}"

    def configure(self, text: str, name: str = "preforkd.yaml") -> None:
        path = self.root / "etc" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def start(self, script: str) -> subprocess.Popen[str]:
        """Start a script inside and do not wait for it."""
        return subprocess.Popen(
            [*self._enter(), "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def load(self, address: str, arguments: str = "--rate 200") -> subprocess.Popen[str]:
        """Start a load inside; `finish` ends it and returns what it has counted."""
        return subprocess.Popen(
            [
                *self._enter(),
                *("python3", "/srv/load.py", address, "--until-closed"),
                *arguments.split(),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def stop(self) -> None:
        """End the machine and remove its root: fifty of them, at half a gigabyte, would fill a disk."""
        for _ in range(2):  # the second one does not wait for a clean shutdown
            if self._nspawn.poll() is None:
                self._nspawn.send_signal(signal.SIGTERM)
                try:
                    self._nspawn.wait(3)
                except subprocess.TimeoutExpired:
                    continue
        if self._nspawn.poll() is None:
            self._nspawn.kill()
            self._nspawn.wait()
        if self._cgroup is not None:
            remove_cgroup(self._cgroup)
        shutil.rmtree(self.root)


def finish(load: subprocess.Popen[str]) -> str:
    """End a load and return its first line: the counts."""
    output, _ = load.communicate("", timeout=60)
    return output.strip()


NC = """python3 -c "
import socket
with socket.create_connection(('127.0.0.1', 8080), 20) as sock:
    print(sock.recv(999).decode())
"
"""
DJANGO = """\
app:
  target: wsgi:mysite.wsgi:application
  directory: /srv/site
  python: /srv/site/.venv/bin/python
"""
ECHO = "app: {target: 'wsgi:echo:application', directory: /srv}\n"
MIXED = "--rate 100 --keep-alive 4 --fresh 6"


def drop_in(machine: Machine, text: str, unit: str = "preforkd.service") -> None:
    """Change a unit."""
    folder = machine.root / f"etc/systemd/system/{unit}.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.conf").write_text(text)
    machine.run("systemctl daemon-reload")


def kill_master(machine: Machine, unit: str) -> None:
    """Kill a service's master; return when systemd has started it again and it serves."""
    restarts = int(machine.show(unit, "NRestarts"))
    machine.run(f"kill -KILL $(systemctl show {unit} -p MainPID --value)")
    machine.until(f"systemctl show {unit} -p NRestarts", f"={restarts + 1}")
    machine.until(f"systemctl show {unit} -p ActiveState", "=active")


def check_nothing_lost(loads: list[subprocess.Popen[str]]) -> None:
    """End the loads and demand that all was answered."""
    for load in loads:
        counted = finish(load)
        assert re.match(r"\d+ ok; ", counted), counted
        assert int(counted.split()[0]) > 200
