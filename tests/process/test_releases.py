"""Deployments that change what is on the disk below a running service: releases, and preforkd itself."""

import shutil
from pathlib import Path

import pytest

import preforkd
from tests.process.service import ask, free_port

APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"release NUMBER"]
"""
IN_LINK = ("sh", "-c", 'cd "$LINK" && exec "$@"', "sh")


class Site:
    """Releases side by side, and a link to the current one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.link = folder / "current"

    def release(self, number: int) -> Path:
        path = self.folder / f"releases/{number}"
        path.mkdir(parents=True)
        (path / "site_app.py").write_text(APP.replace("NUMBER", str(number)))
        (path / "app").symlink_to(".")
        return path

    def point_to(self, path: Path) -> None:
        """Change the link in one step, as deployments do."""
        new = self.folder / "new"
        new.symlink_to(path)
        new.rename(self.link)


@pytest.mark.parametrize("directory", ["", ".", "app", "absolute"])
def test_a_reload_follows_the_link_to_the_current_release(service, tmp_path, directory):
    """However the directory is written, with the file in the release too; the old release may be deleted."""
    site = Site(tmp_path / "site")
    first, second = site.release(1), site.release(2)
    site.point_to(first)
    port = free_port()
    written = str(site.link) if directory == "absolute" else directory
    for release in (first, second):
        (release / "preforkd.yaml").write_text(
            f"app: {{target: 'wsgi:site_app:app', directory: '{written}'}}\n"
            f"listen: 127.0.0.1:{port}\nworkers: 1\n"
        )
    environ = {"LINK": str(site.link)}
    service.start("--config", "preforkd.yaml", environ=environ, command=IN_LINK)
    address = "127.0.0.1", port
    assert ask(address).endswith(b"release 1")
    site.point_to(second)
    shutil.rmtree(first)
    answer = service.control("reload")
    assert answer.returncode == 0, answer.stderr
    assert f"generation 2 is serving, loaded from {second}" in answer.stdout
    assert ("where preforkd was started" in answer.stdout) is (directory in {"", "."})
    assert ask(address).endswith(b"release 2")
    # What is gone is said, and changes nothing.
    site.link.unlink()
    refused = service.control("reload", "--fresh")
    assert refused.returncode == 78
    assert "No such file or directory" in refused.stderr
    assert ask(address).endswith(b"release 2")


def test_a_directory_that_was_deleted_before_the_start(service, tmp_path):
    """Started in it, with nothing else to load from: refused with what to do, without a traceback."""
    (tmp_path / "gone").mkdir()
    service.configure(f"app: {{target: 'wsgi:site_app:app'}}\nlisten: 127.0.0.1:{free_port()}\n")
    command = ("sh", "-c", 'cd "$LINK" && rmdir "$LINK" && exec "$@"', "sh")
    environ = {"LINK": str(tmp_path / "gone")}
    service.start("--config", str(service.config), environ=environ, command=command, ready=False)
    assert service.wait() == 78
    assert (
        "app.directory: the directory in which preforkd was started does not exist any more"
        in service.log
    )
    assert "Traceback" not in service.log


CHANGES = {
    "gone": lambda package: package.rename(package.with_name("away")),
    "another": lambda package: package.joinpath("ipc/messages.py").write_text("Fork = 3\n"),
    "half": lambda package: package.joinpath("zygote/zygote.py").unlink(),
    "broken": lambda package: package.joinpath("config/sources.py").write_text("x = (\n"),
}


@pytest.mark.parametrize("how", CHANGES)
def test_preforkd_that_was_changed_on_disk(service, tmp_path, how):
    """A reload fails, says so and blames nobody else; what serves serves on, and ends when it is told to."""
    package = tmp_path / "lib/preforkd"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(preforkd.__file__).parent, package, ignore=ignored)
    (tmp_path / "site_app.py").write_text(APP)
    port = free_port()
    service.configure(
        f"app: {{target: 'wsgi:site_app:app', directory: {tmp_path}}}\n"
        f"listen: 127.0.0.1:{port}\nworkers: 1\ntimeouts: {{start: 20s}}\n"
    )
    environ = {"LINK": str(package.parent)}  # where python -m looks first
    service.start("--config", str(service.config), environ=environ, command=IN_LINK)
    CHANGES[how](package)
    answer = service.control("reload", "--fresh")
    assert answer.returncode in {70, 71}, answer
    assert (
        "hint: preforkd itself was changed on disk since this service was started" in answer.stderr
    )
    assert ask(("127.0.0.1", port)).endswith(b"release NUMBER")
    assert "Traceback" not in service.log
    assert service.stop() == 0
