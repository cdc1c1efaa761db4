"""Loading an application for trial, by a zygote that ends afterwards."""

import os

import pytest
from msgspec.structs import replace

from preforkd.config import sources
from preforkd.config.credentials import Credentials
from preforkd.errors import Blame
from preforkd.supervisor.check import check_application

pytestmark = pytest.mark.process

TLS = "listen: [{address: ':8443', tls: true}]\ntls:\n  certificate: "


@pytest.fixture
def failure(tmp_path):
    """What comes of the trial of an application with this code and these settings."""

    def tried(code, settings="", **app):
        (tmp_path / "tried.py").write_text(code)
        path = tmp_path / "preforkd.yaml"
        path.write_text(f"app: {{target: 'wsgi:tried:app', directory: {tmp_path}}}\n{settings}")
        loaded = sources.load(str(path), {}, Credentials(None, checking=True))
        whole = replace(loaded.settings, app=replace(loaded.settings.app, **app))
        loaded = sources.Configuration(whole, loaded.origins, loaded.path, loaded.secrets)
        return check_application(loaded, dict(os.environ))

    return tried


def test_an_application_that_loads(failure):
    """There is no failure."""
    assert failure("app = print") is None


def test_each_failure_has_its_blame(failure):
    """The application's code, a name that is wrong, an interpreter that is not there."""
    raised = failure("raise RuntimeError('not today')")
    assert raised.blame is Blame.APPLICATION
    assert "RuntimeError: not today" in raised.detail
    unnamed = failure("application = print")
    assert unnamed.blame is Blame.CONFIGURATION
    assert "preforkd.yaml:1:15: app.target: " in unnamed.reason
    absent = failure("app = print", python="/no/such/python")
    assert absent.blame is Blame.CONFIGURATION
    ended = failure("import os; os._exit(4)")
    assert ended.reason == "loading the application ended with: exit status 4"


MADE = """
import multiprocessing, os, tempfile, time
folder = tempfile.TemporaryDirectory(dir={folder!r}, prefix="made-")
helper = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True)
helper.start()
open({folder!r} + "/helper", "w").write(str(helper.pid))
app = print
{more}
"""


@pytest.mark.parametrize("more", ["", "raise RuntimeError"])
def test_what_the_application_has_made_is_removed(failure, tmp_path, more):
    """Whether it loads or not, its temporary directory and its helper are no more."""
    failure(MADE.format(folder=str(tmp_path), more=more))
    assert not list(tmp_path.glob("made-*"))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "helper").read_text()), 0)


def test_an_application_that_hangs_is_given_up(failure):
    """After timeouts.start, with where it hung; and its process is no more."""
    hung = failure("import time; time.sleep(600)", "timeouts: {start: 3s, boot: 3s}\n")
    assert hung.reason == "the application was not loaded within 3 s"
    assert "tried.py" in hung.detail


def test_without_preload_a_worker_loads_it_for_trial(failure):
    """A start of a thread is no hindrance; the failure has its place, and a worker that hangs its stacks."""
    threaded = "import threading\nthreading.Timer(600, print).start()\ndef app(e, s): pass"
    assert failure(threaded, preload=False) is None
    unnamed = failure("application = print", preload=False)
    assert "preforkd.yaml:1:15: app.target: " in unnamed.reason
    hung = failure("import time; time.sleep(600)", "timeouts: {boot: 1s}\n", preload=False)
    assert hung.reason == "loading the application took longer than 1 s"
    assert "tried.py" in hung.detail


def test_a_certificate_is_tried_unless_only_the_service_is_passed_it(failure):
    """A path is read; a credential that is not here is no fault of the file."""
    missing = failure("app = print", TLS + "/no/such.pem\n")
    assert "preforkd.yaml:4:16: tls.certificate: /no/such.pem" in missing.reason
    assert failure("app = print", TLS + "{credential: tls.certificate}\n") is None
    others = "/no/such.pem\n  certificates: {a.example: {credential: a}}\n"
    assert failure("app = print", TLS + others) is None


def test_what_every_worker_needs_is_tried(failure):
    """An access log with its place, an object of another kind: before anything is forked."""
    log = failure("def app(e, s): pass", "access_log: {target: /no/such/log}\n")
    assert log.blame is Blame.SYSTEM
    assert "preforkd.yaml:2:22: access_log.target: /no/such/log: No such file" in log.reason
    code = "async def app(scope, receive, send): pass"
    other = failure(code)
    assert other.blame is Blame.CONFIGURATION
    assert other.hint == "write asgi:tried:app"
