"""The trial request of a new generation: which worker answers it, and which responses refuse the generation."""

import os
import select
import signal
import sys

import msgspec
import pytest

from preforkd.config.settings import (
    AccessLogSettings,
    AppSettings,
    HttpSettings,
    Settings,
    TimeoutsSettings,
)
from preforkd.ipc import messages
from preforkd.supervisor import children

pytestmark = pytest.mark.process

WSGI = """
import os, pathlib, time
loaded = []

def app(environ, start_response):
    asked = f"{os.getpid()} {environ['HTTP_HOST']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}\\n"
    with open(os.path.join(os.path.dirname(__file__), "asked"), "a") as file:
        file.write(asked)
    path = environ["PATH_INFO"]
    if path == "/raises":
        raise RuntimeError("not today")
    if path == "/ends":
        os._exit(3)
    if path == "/hangs":
        time.sleep(600)
    status = {"/found": "302 Found", "/unknown": "404 Not Found", "/strange": "400 Bad Request"}
    start_response(status.get(path, "200 OK"), [])
    yield b"x"
    if path == "/hangs-later":
        time.sleep(600)
"""
ASGI = """
import os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if os.environ.get("BREAK"):
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("lifespan ends", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    status = 200 if scope["path"] == "/health" else 500
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})
"""


class Zygote:
    """One that was executed as the master does it, and has received Load."""

    def __init__(
        self, folder, code, path, *, kind="wsgi", check=True, boot=30.0, start=60.0, **app
    ):
        (folder / "checked.py").write_text(code)
        whole = Settings(
            app=AppSettings(target=f"{kind}:checked:app", directory=str(folder), check=path, **app),
            access_log=AccessLogSettings(target=str(folder / "log")),
            timeouts=TimeoutsSettings(boot=boot, start=start),
            http=HttpSettings(keep_alive=0),
        )
        environment = {**os.environ, "JOURNAL_STREAM": "", **whole.app.environment}
        self.pid, self.channel = children.execute_zygote(sys.executable, environment)
        self.channel.send(messages.Load(1, msgspec.msgpack.encode(whole), (), check=check))

    def answer(self):
        assert select.select([self.channel], [], [], 60)[0], "it says nothing"
        return self.channel.receive(wait=False).message

    def close(self):
        self.channel.close()
        os.waitpid(self.pid, 0)


@pytest.fixture
def load(tmp_path):
    made = []

    def start(*arguments, **how):
        made.append(Zygote(tmp_path, *arguments, **how))
        return made[-1]

    yield start
    for zygote in made:
        zygote.close()


def gone(pid):
    """Return when a process has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], 20)[0])
    finally:
        os.close(pidfd)


def asked(folder):
    """Return pid, host and target of each request that the application has seen."""
    path = folder / "asked"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize(
    ("check", "host", "target"),
    [
        ("/health?deep=1", "localhost", "/health?deep=1"),
        ("/found", "localhost", "/found?"),
        ("http://shop.example/x", "shop.example", "/x?"),
    ],
)
def test_one_worker_is_asked_and_ends(load, tmp_path, check, host, target):
    """Not the zygote; by the path or host of the setting, once; a redirection is an answer."""
    zygote = load(WSGI, check)
    assert isinstance(zygote.answer(), messages.Loaded)
    ((pid, seen_host, seen),) = asked(tmp_path)
    assert (seen_host, seen) == (host, target)
    assert int(pid) != zygote.pid
    assert gone(int(pid))
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("check", "words", "hint"),
    [
        ("/unknown", "app.check: GET /unknown was answered with 404 Not Found", ""),
        ("/strange", "was answered with 400 Bad Request", "http://shop.example/"),
        ("/raises", "was answered with 500 Internal Server Error", ""),
        ("/ends", "was not answered: the worker closed the connection", ""),
    ],
)
def test_a_rejected_response_refuses_the_generation(load, check, words, hint):
    """With the status, in the setting's name, as the application's fault."""
    failure = load(WSGI, check).answer().failure
    assert words in failure.reason
    assert hint in failure.hint
    assert (failure.blame, failure.setting) == ("application", "app.check")


@pytest.mark.parametrize("check", ["/hangs", "/hangs-later"])
def test_a_request_that_hangs_is_given_up_with_its_stacks(load, tmp_path, check):
    """After timeouts.boot, before or within its answer; the worker that hangs is no more."""
    failure = load(WSGI, check, boot=1.0).answer().failure
    assert failure.reason == f"app.check: GET {check} was not answered within 1 s"
    assert "checked.py" in failure.detail
    assert gone(int(asked(tmp_path)[0][0]))


def test_a_request_that_hangs_is_given_up_before_the_start_is(load):
    """The timeout is reported before timeouts.start ends."""
    failure = load(WSGI, "/hangs", start=4.0).answer().failure
    assert failure.reason.startswith("app.check: GET /hangs was not answered within ")
    assert float(failure.reason.split()[-2]) < 3.1


def test_a_zygote_that_is_killed_leaves_no_worker(load, tmp_path):
    """The zygote is killed while the request hangs: its worker exits, too."""
    zygote = load(WSGI, "/hangs")
    while not asked(tmp_path):
        assert not select.select([zygote.channel], [], [], 0.05)[0]
    os.kill(zygote.pid, signal.SIGKILL)
    assert gone(int(asked(tmp_path)[0][0]))


@pytest.mark.parametrize("how", [{"check": False}, {"path": ""}])
def test_nothing_is_asked_of_one_that_serves(load, tmp_path, how):
    """Its zygote is started again with another database perhaps: workers are needed all the same."""
    zygote = load(WSGI, how.get("path", "/raises"), check=how.get("check", True))
    assert isinstance(zygote.answer(), messages.Loaded)
    assert asked(tmp_path) == []


KEPT = (
    """
import atexit, os, weakref

class Folder:
    pass

folder = Folder()
finalizer = weakref.finalize(folder, open(__file__ + ".removed", "a").write, f"{os.getpid()} ")

"""
    + WSGI
)


def test_what_the_zygote_has_made_outlives_the_worker(load, tmp_path):
    """A temporary directory of the application's is removed by the zygote, at its own end."""
    zygote = load(KEPT, "/health")
    assert isinstance(zygote.answer(), messages.Loaded)
    assert gone(int(asked(tmp_path)[0][0]))
    removed = tmp_path / "checked.py.removed"
    assert removed.read_text() == ""
    zygote.channel.send(messages.Dismiss())
    assert gone(zygote.pid)
    assert removed.read_text() == f"{zygote.pid} "


def test_an_asgi_application_is_asked_within_its_lifespan(load, capfd):
    """It starts, answers and ends as in each worker."""
    assert isinstance(load(ASGI, "/health", kind="asgi").answer(), messages.Loaded)
    assert "lifespan ends" in capfd.readouterr().out
    failure = load(ASGI, "/", kind="asgi").answer().failure
    assert failure.reason == "app.check: GET / was answered with 500 Internal Server Error"


def test_a_worker_that_fails_to_start_reports_why(load):
    """A failed lifespan is reported as for any worker."""
    failure = load(ASGI, "/health", kind="asgi", environment={"BREAK": "1"}).answer().failure
    assert failure.reason == "the application's lifespan startup failed"
