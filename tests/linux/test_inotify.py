"""Changes of files in directories."""

import select

import pytest

from preforkd.linux.inotify import Change, Inotify


@pytest.fixture
def watching(tmp_path):
    """An instance that watches a directory, and the number of its watch."""
    inotify = Inotify()
    yield inotify, inotify.add(str(tmp_path))
    inotify.close()


def test_each_change_has_its_directory_and_its_name(watching, tmp_path):
    """Written, renamed and removed files; a file that is only created is not reported before it is written."""
    inotify, watch = watching
    with (tmp_path / "å.py").open("w") as file:
        assert list(inotify.read()) == []
        file.write("x")
    assert select.select([inotify.fileno()], [], [], 10)[0]
    assert list(inotify.read()) == [Change(watch, "å.py", False)]
    (tmp_path / "å.py").rename(tmp_path / "b")
    assert list(inotify.read()) == [Change(watch, "å.py", False), Change(watch, "b", False)]
    (tmp_path / "b").unlink()
    (tmp_path / "folder").mkdir()
    assert list(inotify.read()) == [Change(watch, "b", False), Change(watch, "folder", True)]
    assert inotify.add(str(tmp_path)) == watch


def test_a_directory_that_is_removed_is_no_change_of_its_own(watching, tmp_path):
    """Its parent's watch reports it; the end of a watch has no name and is left out."""
    inotify, watch = watching
    (tmp_path / "folder").mkdir()
    inotify.add(str(tmp_path / "folder"))
    list(inotify.read())
    (tmp_path / "folder").rmdir()
    assert list(inotify.read()) == [Change(watch, "folder", True)]


def test_what_is_no_directory_cannot_be_watched(watching, tmp_path):
    """The kernel's error is raised."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        watching[0].add(str(tmp_path / "file"))
