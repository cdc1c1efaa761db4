"""README's first applications, as they are written there."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.process.service import HERE, free_port

pytestmark = pytest.mark.process

TEXT = (HERE.parent.parent / "README.md").read_text()
SECTION = TEXT.partition("## A first application\n")[2].partition("\n## ")[0]


def example(start: str) -> str:
    """Return README's first configuration behind this line."""
    after = SECTION[SECTION.index(start) :]
    lines = re.search(r"^    app:\n(?:    .+\n)+", after, re.MULTILINE)
    assert lines is not None, start
    return re.sub("^    ", "", lines[0], flags=re.MULTILINE)


def module(path: str) -> str:
    """Return the code that README shows for a file."""
    code = re.search(rf"^    # {path}\n((?:    .*\n|\n)+?)\n    # /srv", SECTION, re.MULTILINE)
    assert code is not None, path
    return re.sub("^    ", "", code[1], flags=re.MULTILINE)


def placed(text: str, folder: Path) -> tuple[str, int]:
    """Return a configuration for another folder than /srv and for a port that is free, and that port."""
    port = free_port()
    text, places = re.subn(r"(directory: )/srv", rf"\g<1>{folder}", text)
    text, ports = re.subn(r"(listen: 127\.0\.0\.1:)\d+", rf"\g<1>{port}", text)
    assert (places, ports) == (1, 1)
    return text, port


def answer(service, text: str, path: str) -> bytes:
    """Return what the application of a configuration answers when it was checked and started."""
    text, port = placed(text, service.folder)
    config = str(service.configure(text))
    check = [sys.executable, "-m", "preforkd", "check", "--import", config]
    subprocess.run(check, check=True, timeout=60)
    service.start("--config", config)
    assert "warm_up" not in service.log  # a failure would be logged with the setting's name
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as got:
        return bytes(got.read())


def test_flask(service):
    """The module and the file of the first example serve what they promise."""
    (service.folder / "hello").mkdir()
    (service.folder / "hello/hello.py").write_text(module("/srv/hello/hello.py"))
    assert b"Hello from Flask" in answer(service, example("# /srv/hello/preforkd.yaml"), "/")


def test_django(service):
    """A project that django-admin has just made is served, its admin with it."""
    command = [sys.executable, "-m", "django", "startproject", "mysite", str(service.folder)]
    subprocess.run(command, check=True, timeout=60)
    assert b"Django administration" in answer(service, example("\nDjango"), "/admin/login/")


def test_fastapi(service):
    """It is warmed up by a function, and tried by a request before it serves."""
    (service.folder / "shop").mkdir()
    (service.folder / "shop/shop.py").write_text(module("/srv/shop/shop.py"))
    assert b'{"hello":"FastAPI"}' in answer(service, example("# /srv/shop/preforkd.yaml"), "/")
