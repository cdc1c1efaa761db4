"""The interpreter of the application, and why it cannot be used."""

import errno
import os
import sys

import pytest

from preforkd.config.settings import AppSettings, Settings
from preforkd.errors import Blame
from preforkd.supervisor import children, interpreter


def with_python(python):
    """Return settings whose app.python is this."""
    return Settings(app=AppSettings(python=str(python)))


def test_which_program_it_is(tmp_path):
    """A program by its path, that of a virtual environment by the directory, else our own."""
    assert interpreter.executable(with_python("/bin/x")) == "/bin/x"
    assert interpreter.executable(with_python(tmp_path)) == f"{tmp_path}/bin/python"
    assert interpreter.executable(Settings()) == sys.executable


def test_an_environment_that_is_too_large_is_named():
    """Not the interpreter, which is there."""
    failure = interpreter.not_executable(
        Settings(app=AppSettings(python="/bin/x")), OSError(errno.E2BIG, "too long")
    )
    assert failure.reason.startswith("the environment of the application is larger")
    assert "app.environment" in failure.hint


@pytest.mark.parametrize(
    ("python", "code", "blame", "words"),
    [
        ("/bin/x", errno.ENOENT, Blame.CONFIGURATION, "app.python: /bin/x cannot be executed"),
        ("", errno.EACCES, Blame.SYSTEM, "cannot be executed"),
        ("/bin/x", errno.EAGAIN, Blame.SYSTEM, "cannot start the zygote"),
    ],
)
def test_what_cannot_be_executed(python, code, blame, words):
    """The setting is to blame if it is set, and the system has what a process needs."""
    failure = interpreter.not_executable(with_python(python), OSError(code, os.strerror(code)))
    assert failure.blame is blame
    assert words in failure.reason


def test_a_directory_that_is_no_environment(tmp_path):
    """It is named with the program that it lacks."""
    failure = interpreter.not_executable(with_python(tmp_path), OSError(errno.ENOENT, "No"))
    assert f"{tmp_path}/bin/python cannot be executed" in failure.reason
    assert "virtual environment" in failure.hint


@pytest.mark.parametrize("status", [None, 0, 1, 96])
def test_other_ends_of_a_zygote(status):
    """They have other reasons."""
    assert interpreter.failure_of(Settings(), status) is None


OURS = sys.version_info[:3]


@pytest.mark.process
@pytest.mark.parametrize(
    ("version", "status", "words"),
    [
        ((3, 10, 1), interpreter.TOO_OLD, "older than Python 3.11"),
        ((3, 99, 1), interpreter.OTHER_VERSION, "it is another version"),
        (OURS, interpreter.UNUSABLE, "the log has its error"),
    ],
)
def test_a_zygote_reports_what_its_interpreter_lacks(version, status, words, tmp_path, capfd):
    """By its exit status, from which the failure follows; what exactly is on standard error."""
    (tmp_path / "msgspec.py").write_text("raise ImportError('none here')\n")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.version_info = {version}\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    pid, channel = children.execute_zygote(sys.executable, environment)
    _, ended = os.waitpid(pid, 0)
    channel.close()
    assert os.waitstatus_to_exitcode(ended) == status
    failure = interpreter.failure_of(with_python("/v/bin/python"), status)
    assert failure.blame is Blame.CONFIGURATION
    assert words in failure.reason
    old = status == interpreter.TOO_OLD
    assert ("3.11 or newer" if old else "/v/bin/python -m pip install msgspec") in failure.hint
    assert ("is Python 3.10" if old else "none here") in capfd.readouterr().err
