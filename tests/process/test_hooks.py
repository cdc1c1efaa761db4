"""The moments of a process's life, as an application's hooks see them."""

import os
import signal

from tests.process.service import ask, free_port

SITE = """
import os

class Hooks:
    connection = None

    def _say(self, what):
        worker = os.environ.get("PREFORKD_WORKER", "-")
        with open("moments", "a") as file:
            file.write(f"{os.getpid()} {worker} {what}\\n")

    def zygote_loaded(self):
        self.connection = object()
        self._say("zygote_loaded")

    def after_fork(self):
        self.connection = None
        self._say("after_fork")
        raise OSError("the database is away")

    def worker_started(self):
        self._say("worker_started")

    def worker_leaving(self):
        self._say("worker_leaving")

hooks = Hooks()

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"connection {hooks.connection}".encode()]
"""


def moments(folder):
    """Return what was seen, by process."""
    seen = {}
    for line in (folder / "moments").read_text().splitlines():
        pid, worker, what = line.split(" ", 2)
        seen.setdefault(int(pid), []).append((worker, what))
    return seen


def test_hooks_from_the_zygote_to_the_end(service, tmp_path):
    """Each process sees its moments in order; one hook fails in each worker and nothing is harmed."""
    (tmp_path / "hooked.py").write_text(SITE)
    port = free_port()
    config = service.configure(
        f"app:\n  target: wsgi:hooked:application\n  directory: {tmp_path}\n"
        f"hooks: hooked:hooks\nlisten: 127.0.0.1:{port}\nworkers: 2\n"
    )
    service.start("--config", str(config))
    assert b"connection None" in ask(("127.0.0.1", port))
    zygote, workers = service.zygote(), service.workers()
    before = len(workers)
    os.kill(workers[0], signal.SIGTERM)
    status = service.until(
        lambda status: (
            workers[0] not in [row["pid"] for row in status["workers"]]
            and status["ready"] == before
        )
    )
    replacement = {row["pid"] for row in status["workers"]} - set(workers)
    assert service.stop() == 0
    seen = moments(tmp_path)
    assert seen.pop(zygote) == [("-", "zygote_loaded")]
    assert set(seen) == {*workers, *replacement}
    for steps in seen.values():
        slot = steps[0][0]
        assert slot != "-"
        names = ["after_fork", "worker_started", "worker_leaving"]
        assert steps == [(slot, name) for name in names]
    assert service.log.count("the hook after_fork failed") == 3
    assert "the database is away" in service.log


def test_hooks_that_are_not_there_fail_a_reload_and_nothing_else(service, tmp_path):
    """The answer names the setting; the old generation serves on."""
    (tmp_path / "hooked.py").write_text(SITE)
    port = free_port()
    text = (
        f"app:\n  target: wsgi:hooked:application\n  directory: {tmp_path}\n"
        f"listen: 127.0.0.1:{port}\nworkers: 1\n"
    )
    config = service.configure(text)
    service.start("--config", str(config))
    service.configure(text + "hooks: hooked:hoks\n")
    answer = service.control("reload")
    assert answer.returncode == 78
    assert f"hooks: hooked ({tmp_path}/hooked.py) has no attribute 'hoks'" in answer.stderr
    assert "did you mean hooks" in answer.stderr
    assert b"200 OK" in ask(("127.0.0.1", port))


def test_warm_up_is_done_once_and_seen_by_all(service, tmp_path):
    """What a request and a function built in the zygote is there in each worker; a failure is told."""
    (tmp_path / "warm.py").write_text(
        "import os\n"
        "built = []\n"
        "def fill(): built.append(f'fill in {os.getpid()}')\n"
        "def broken(): raise OSError('no cache')\n"
        "def application(environ, start_response):\n"
        "    if not built or environ['PATH_INFO'] == '/build':\n"
        "        built.append(f'request in {os.getpid()}')\n"
        "    start_response('200 OK', [])\n"
        "    return [' and '.join(built).encode()]\n"
    )
    port = free_port()
    text = (
        f"app:\n  target: wsgi:warm:application\n  directory: {tmp_path}\n"
        "  warm_up: [/build, warm:broken, warm:fill]\n"
        f"listen: 127.0.0.1:{port}\nworkers: 2\n"
    )
    service.start("--config", str(service.configure(text)))
    zygote = service.zygote()
    built = f"request in {zygote} and fill in {zygote}".encode()
    for _ in range(8):
        assert ask(("127.0.0.1", port), "/").endswith(b"\r\n\r\n" + built)
    assert "app.warm_up: warm:broken failed: OSError: no cache (in broken, " in service.log
    service.configure(text.replace("  warm_up:", "  warm_up_required: true\n  warm_up:"))
    answer = service.control("reload")
    assert answer.returncode == 69
    assert "warm:broken failed" in answer.stderr
    assert ask(("127.0.0.1", port), "/").endswith(built)
