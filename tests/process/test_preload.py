"""app.preload: false: each worker loads the application, whatever that starts."""

import pytest

from preforkd.errors import ExitStatus
from tests.process.service import ask, free_port

THREADED = """
import queue, threading

asked, answers = queue.Queue(), queue.Queue()

def echo():
    while True:
        answers.put(asked.get())

threading.Thread(target=echo, daemon=True).start()

def application(environ, start_response):
    asked.put(b"{word}")
    start_response("200 OK", [])
    return [answers.get(timeout=20)]
"""
SETTINGS = "workers: 2"
TARGET = "wsgi:threaded:application', preload: false, check: '/"


def reload(service):
    """Reload, and wait until the workers of before have gone."""
    answer = service.control("reload")
    assert answer.returncode == 0, answer.stderr
    service.until(lambda status: len(status["workers"]) == 2)


def test_a_thread_that_is_started_at_import_runs_in_each_worker(service):
    """It answers the trial request and others, before and after a reload; the log has the costs, no warning."""
    port = service.serve("threaded", THREADED.format(word="one"), SETTINGS, TARGET)
    assert ask(port).endswith(b"one")
    (service.folder / "threaded.py").write_text(THREADED.format(word="another"))
    reload(service)
    assert ask(port).endswith(b"another")
    assert "app.preload is false: each worker takes its own time and memory" in service.log
    assert service.log.count("loaded the application in ") == 6
    assert "warning" not in service.log
    refused = service.control("refork")
    assert refused.returncode == ExitStatus.CONFIGURATION
    assert "app.preload is false" in refused.stderr


@pytest.mark.logs("RuntimeError: not today")
def test_a_worker_that_does_not_load_fails_the_reload(service):
    """The old generation serves on, the answer has the traceback, and the next reload mends it."""
    target = TARGET.partition(", check")[0] + ", check: '"
    port = service.serve("threaded", THREADED.format(word="one"), SETTINGS, target)
    (service.folder / "threaded.py").write_text("raise RuntimeError('not today')")
    answer = service.control("reload")
    assert answer.returncode == ExitStatus.APPLICATION
    assert "importing threaded failed: RuntimeError: not today" in answer.stderr
    assert 'threaded.py", line 1, in <module>' in answer.stderr
    assert ask(port).endswith(b"one")
    assert len(service.workers()) == 2
    (service.folder / "threaded.py").write_text(THREADED.format(word="mended"))
    reload(service)
    assert ask(port).endswith(b"mended")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise RuntimeError('not today')", "importing faulty failed: RuntimeError: not today"),
        ("import os; os._exit(5)", "exited before it was ready: exit status 5"),
        ("import os; os.closerange(3, 100)", "closed a descriptor of preforkd"),
    ],
)
@pytest.mark.logs("not today", "closed a descriptor")
def test_the_first_worker_that_does_not_load_fails_the_start(service, code, words):
    """At once, as with preload: it would fail the same way again."""
    (service.folder / "faulty.py").write_text(code)
    service.configure(
        f"app: {{target: 'wsgi:faulty:app', preload: false, directory: {service.folder}}}\n"
        f"listen: 127.0.0.1:{free_port()}\nworkers: 1\n"
    )
    service.start("--config", str(service.config), ready=False)
    assert service.wait(20) == ExitStatus.APPLICATION
    assert words in service.log
    assert "the service cannot start" in service.log
