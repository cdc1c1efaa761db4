"""Whether preforkd's files are those that this process was started from."""

import os

import pytest

from preforkd.supervisor import installed_code


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in place of preforkd's, as it was at the start."""
    (tmp_path / "preforkd/inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/a.py"):
        (tmp_path / "preforkd" / name).write_text("x = 1\n")
    monkeypatch.setattr(installed_code.preforkd, "__file__", str(tmp_path / "preforkd/__init__.py"))
    monkeypatch.setattr(installed_code, "_AT_START", installed_code._state())
    return tmp_path / "preforkd"


def test_a_change_of_any_file_is_seen(package):
    """Changed, added, removed, and all of it gone; compiled files are not the package's."""
    (package / "__pycache__").mkdir()
    (package / "__pycache__/a.pyc").write_text("compiled")
    assert not installed_code.changed()
    file = package / "inner/a.py"
    before = file.stat()
    file.write_text("x = 22\n")
    assert installed_code.changed()
    file.write_text("x = 1\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not installed_code.changed()
    (package / "new.py").write_text("")
    assert installed_code.changed()
    (package / "new.py").unlink()
    assert not installed_code.changed()
    package.rename(package.with_name("away"))
    assert installed_code.changed()


def test_this_preforkd_was_not_changed():
    """Unless it is edited while its tests run."""
    assert not installed_code.changed()
