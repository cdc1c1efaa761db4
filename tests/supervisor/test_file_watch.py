"""Which changes of files request a reload."""

import os

import pytest

from preforkd.loop import Loop
from preforkd.supervisor import file_watch
from preforkd.supervisor.file_watch import FileWatch


class Scene:
    """A watched application in ``site``, its configuration in ``etc``, and the requests."""

    def __init__(self, folder):
        self.loop, self.requests = Loop(), []
        self.site, self.configuration = folder / "site", folder / "etc" / "preforkd.yaml"
        for name in ("site/shop", "site/.git", "site/venv/lib", "site/node_modules/x", "etc"):
            (folder / name).mkdir(parents=True)
        (self.site / "venv" / "pyvenv.cfg").touch()
        self.watch = FileWatch(self.loop, self._request)
        self.update()

    def update(self):
        self.watch.update(str(self.site), str(self.configuration))

    def _request(self, fresh):
        self.requests.append(fresh)
        self.loop.stop()

    def after(self, *paths):
        """Write these files; return the requests, once there is one."""
        self.requests.clear()
        for path in paths:
            path.write_text("")
        limit = self.loop.call_later(20, self.loop.stop)
        self.loop.run()
        limit.cancel()
        return self.requests


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path)
    yield scene
    scene.watch.close()
    scene.loop.close()


def test_one_request_for_changes_that_come_together(scene):
    """True if a file of the application is among them: the configuration alone may need no new workers."""
    assert scene.after(scene.site / "a.py", scene.site / "shop" / "b.html") == [True]
    assert scene.after(scene.configuration) == [False]
    assert scene.after(scene.configuration, scene.site / ".env") == [True]


def test_what_is_no_change_of_the_application(scene, caplog):
    """What tools, editors and the application write, and what lies beside the configuration."""
    caplog.set_level("INFO")
    site, names = scene.site, ("a.py~", ".a.py.swp", "4913", "a.log", "db.sqlite3-journal", "a.pyc")
    ignored = [site / name for name in names]
    ignored += [
        site / ".git" / "index",
        site / "venv" / "lib" / "a.py",
        site / "node_modules" / "x" / "a.js",
    ]
    ignored += [scene.configuration.with_name("other.yaml")]
    (site / "__pycache__").mkdir()
    assert scene.after(*ignored, site / "__pycache__" / "a.cpython-311.pyc", site / "b.py") == [
        True
    ]
    assert f"app.watch: {site}/b.py changed: reloading" in caplog.text


def test_a_new_directory_is_watched(scene):
    """Made, or moved to its place, with its subdirectories."""
    (scene.site / "new" / "inner").mkdir(parents=True)
    assert scene.after() == [True]
    assert scene.after(scene.site / "new" / "inner" / "a.py") == [True]
    (scene.site / "new").rename(scene.site / "moved")
    assert scene.after() == [True]
    assert scene.after(scene.site / "moved" / "inner" / "a.py") == [True]


def test_bytecode_that_hides_a_change_is_removed(scene):
    """CPython would take it for that of the changed source, if both saves are of one second."""
    cache = scene.site / "__pycache__"
    cache.mkdir()
    for name in ("a.cpython-311.pyc", "a.cpython-313.opt-1.pyc", "ab.cpython-311.pyc"):
        (cache / name).touch()
    scene.after(scene.site / "a.py")
    assert os.listdir(cache) == ["ab.cpython-311.pyc"]


def test_it_follows_the_directory_and_ends(scene, tmp_path):
    """A link that leads to another release; nothing is watched any more without a directory."""
    other = tmp_path / "other"
    other.mkdir()
    scene.site.rename(tmp_path / "first")
    scene.site.symlink_to(other)
    scene.update()
    assert scene.after(other / "a.py") == [True]
    scene.watch.update(None, None)
    scene.requests.clear()
    (other / "b.py").write_text("")
    scene.loop.call_later(2 * file_watch._QUIET, scene.loop.stop)
    scene.loop.run()
    assert scene.requests == []


def test_what_cannot_be_watched_is_logged(scene, tmp_path, caplog, monkeypatch):
    """A configuration in a directory that is gone; too many directories."""
    scene.watch.update(str(scene.site), "/no/such/preforkd.yaml")
    assert "app.watch: not all files are watched: No such file or directory" in caplog.text
    monkeypatch.setattr(file_watch, "_MOST_DIRECTORIES", 1)
    scene.update()
    assert f"app.watch: more than 1 directories below {scene.site}" in caplog.text
