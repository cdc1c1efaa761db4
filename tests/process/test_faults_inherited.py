"""What an application has made before a fork, and the children that it forks itself."""

import contextlib
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from tests.process.faults import get, serve, whole_again
from tests.process.service import free_port, wait_until_gone

MADE = """
import atexit, json, multiprocessing, os, tempfile, threading, time

context = multiprocessing.get_context("fork")
folder = tempfile.TemporaryDirectory(dir=os.environ["SCRATCH"])
helper = context.Process(target=time.sleep, args=(600,), daemon=True)
helper.start()
manager = context.Manager()
shared = manager.dict(n=0)
lock = manager.Lock()

@atexit.register
def told():
    with open(os.environ["SCRATCH"] + "/told", "a") as file:
        file.write(f"{os.getpid()}\\n")

def application(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        open(os.environ["SCRATCH"] + "/waits", "w").close()
        while not os.path.exists(os.environ["SCRATCH"] + "/go"):
            time.sleep(0.02)
    with lock:
        shared["n"] += 1
    try:
        os.kill(helper.pid, 0)
        alive = True
    except ProcessLookupError:
        alive = False
    children = len(multiprocessing.active_children())
    facts = dict(pid=os.getpid(), folder=folder.name, there=os.path.isdir(folder.name),
                 helper=helper.pid, alive=alive, n=shared["n"], children=children)
    start_response("200 OK", [])
    return [json.dumps(facts).encode()]
"""


def made(service, path="/"):
    status, body = get(service.address, path)
    assert status == 200
    return json.loads(body)


def start_with_what_is_made(service, folder, **how):
    (folder / "made.py").write_text(MADE)
    return serve(service, target="wsgi:made:application", directory=str(folder), **how)


def test_what_was_made_at_import_outlives_a_worker(service, tmp_path):
    """Temporary directory, helper and manager are there until the last worker has gone, and not longer."""
    start_with_what_is_made(service, tmp_path)
    before = set(service.workers())
    facts = made(service)
    assert facts["there"]
    assert facts["alive"]
    assert facts["children"] == 0
    gone = min(before)
    os.kill(gone, signal.SIGTERM)
    wait_until_gone([gone])
    whole_again(service, 2, {gone})
    answers = [made(service) for _ in range(6)]
    assert [answer["n"] for answer in answers] == list(range(2, 8))
    assert all(answer["there"] and answer["alive"] for answer in answers)
    # What is registered with atexit runs in each process that ends.
    assert (service.folder / "told").read_text().split() == [str(gone)]
    zygote = service.zygote()
    assert service.stop() == 0
    wait_until_gone([facts["helper"]])
    assert not Path(facts["folder"]).exists()
    assert str(zygote) in (service.folder / "told").read_text().split()
    assert "Traceback" not in service.log


def test_what_was_made_at_import_during_a_reload(service, tmp_path):
    """A worker of the old generation that still answers has what its zygote has made."""
    start_with_what_is_made(service, tmp_path, workers=1)
    (worker,) = service.workers()
    first = made(service)
    answers = []
    slow = threading.Thread(target=lambda: answers.append(made(service, "/wait")))
    slow.start()
    service.until(lambda _: (service.folder / "waits").exists())
    assert service.control("reload", "--fresh").returncode == 0
    second = made_by_another(service, worker)
    assert second["folder"] != first["folder"]
    assert Path(first["folder"]).is_dir()
    (service.folder / "go").touch()
    slow.join()
    (answer,) = answers
    assert (answer["pid"], answer["folder"]) == (worker, first["folder"])
    assert answer["there"]
    assert answer["alive"]
    whole_again(service, 1, {worker})
    wait_until_gone([first["helper"]])
    assert not Path(first["folder"]).exists()
    assert service.stop() == 0


def made_by_another(service, worker):
    facts = {"pid": worker}
    while facts["pid"] == worker:
        facts = made(service)
    return facts


def test_what_was_made_at_import_after_a_refork(service, tmp_path):
    """The zygote that is followed takes nothing away when it leaves, nor does the worker between them."""
    start_with_what_is_made(service, tmp_path, workers=1)
    first = made(service)
    zygote = service.zygote()
    assert service.control("refork").returncode == 0
    service.until(lambda status: {row["zygote_pid"] for row in status["generations"]} != {zygote})
    wait_until_gone([zygote, first["pid"]])
    second = made(service)
    assert second["pid"] != first["pid"]
    assert second["folder"] == first["folder"]
    assert second["there"]
    assert second["alive"]
    assert second["n"] == first["n"] + 1
    assert service.stop() == 0
    assert str(zygote) not in (service.folder / "told").read_text().split()
    for pid in (first["helper"],):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


FORKING = """
import concurrent.futures, multiprocessing, os, pty, signal, subprocess, sys, time

def as_usual():
    usual = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    return usual and signal.set_wakeup_fd(-1) == -1

def ends(fork):
    pid = fork()
    if pid == 0:
        time.sleep(600)
    os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def process(method):
    child = multiprocessing.get_context(method).Process(target=time.sleep, args=(600,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode

def program():
    # Its handlers are those of the program; what runs before it is told by its exit status.
    how = lambda: None if as_usual() else os._exit(9)
    child = subprocess.Popen(["sleep", "600"], preexec_fn=how)
    child.terminate()
    return child.wait()

HOW = {
    "fork": lambda: ends(os.fork),
    "pty": lambda: ends(lambda: pty.fork()[0]),
    "process": lambda: process("fork"),
    "spawn": lambda: process("spawn"),
    "forkserver": lambda: process("forkserver"),
    "program": program,
}

def answer(path):
    if path == "/left":
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True).start()
        return str(os.getpid())
    return str(HOW[path[1:]]())

def application(environ, start_response):
    start_response("200 OK", [])
    return [answer(environ["PATH_INFO"]).encode()]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        print("start-up:", ends(os.fork), flush=True)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = answer(scope["path"]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

class Hooks:
    @staticmethod
    def after_fork():
        print("after_fork:", ends(os.fork), flush=True)
    @staticmethod
    def worker_started():
        print("worker_started:", ends(os.fork), flush=True)
    @staticmethod
    def zygote_loaded():
        print("zygote_loaded:", ends(os.fork), flush=True)
"""


@pytest.mark.parametrize(
    ("target", "threads"),
    [("wsgi:forking:application", 1), ("wsgi:forking:application", 3), ("asgi:forking:asgi", 1)],
)
def test_children_of_the_application_end_by_sigterm(service, tmp_path, target, threads):
    """However and wherever they are forked; the worker itself stays, and a stop waits for none of them."""
    (tmp_path / "forking.py").write_text(FORKING)
    more = "hooks: forking:Hooks\ntimeouts: {drain: 60s}\n"
    how = {"target": target, "directory": str(tmp_path), "threads": threads, "more": more}
    serve(service, workers=1, **how)
    (worker,) = service.workers()
    for moment in ("zygote_loaded", "after_fork", "worker_started"):
        assert f"{moment}: -15" in service.log
    assert ("start-up: -15" in service.log) == target.startswith("asgi")
    for path in ("/fork", "/pty", "/process", "/spawn", "/forkserver", "/program"):
        assert get(service.address, path) == (200, b"-15"), path
    assert get(service.address, "/left") == (200, str(worker).encode())
    assert service.stop() == 0
    assert "is killed" not in service.log
    assert "is draining without an order of the master" not in service.log


def test_a_child_that_a_hook_forks_and_lets_return(service, tmp_path):
    """It does not go on as a second worker."""
    (tmp_path / "twice.py").write_text(
        "import os\n"
        "def worker_started():\n"
        "    if os.fork() == 0:\n"
        "        return\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [str(os.getpid()).encode()]\n"
    )
    target = "wsgi:twice:application"
    serve(service, workers=1, target=target, directory=str(tmp_path), more="hooks: twice\n")
    (worker,) = service.workers()
    for _ in range(20):
        assert get(service.address, "/") == (200, str(worker).encode())
    service.until(lambda _: "returned into the worker's code; terminated" in service.log)
    assert service.stop() == 0


def test_what_was_made_at_import_outlives_the_trial_request(service, tmp_path):
    """The worker that answers app.check takes nothing away when it leaves."""
    (tmp_path / "made.py").write_text(MADE)
    service.port = free_port()
    service.address = ("127.0.0.1", service.port)
    service.configure(
        f"app:\n  target: wsgi:made:application\n  directory: {tmp_path}\n  check: /\n"
        f"  environment: {{SCRATCH: {service.folder}}}\n"
        f"listen: 127.0.0.1:{service.port}\nworkers: 1\n"
    )
    service.start("--config", str(service.config))
    facts = made(service)
    assert facts["n"] == 2
    assert facts["there"]
    assert facts["alive"]
    assert service.stop() == 0


WSGI = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
"""
NAMED = {
    "loop": ("import asyncio\nloop = asyncio.new_event_loop()", ["an event loop of asyncio"]),
    "pool": (
        "import multiprocessing\npool = multiprocessing.get_context('fork').Pool(1)",
        ["a pool of multiprocessing"],
    ),
    "threads": (
        "import concurrent.futures\npool = concurrent.futures.ThreadPoolExecutor(1)\npool.submit(int)",
        ["a ThreadPoolExecutor that has been used"],
    ),
    "grpc": ("import grpc\nchannel = grpc.insecure_channel('127.0.0.1:1')", ["a channel of gRPC"]),
}
HARMLESS = {
    "again": (
        "import os, threading\n"
        "def start():\n"
        "    threading.Thread(target=threading.Event().wait, name='exporter', daemon=True).start()\n"
        "start()\nos.register_at_fork(after_in_child=start)"
    ),
    "manager": (
        "import multiprocessing\nmanager = multiprocessing.get_context('fork').Manager()\n"
        "shared = manager.dict(n=1)\nassert shared['n'] == 1"
    ),
    "numpy": "import numpy\na = numpy.ones((600, 600))\na @ a",
    "sentry_sdk": (
        "import sentry_sdk\nsentry_sdk.init('http://a@127.0.0.1:1/1', traces_sample_rate=1.0)\n"
        "sentry_sdk.capture_message('hello')"
    ),
    "opentelemetry.sdk": (
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))"
    ),
}


def demand(library):
    # Not imported here: some have hooks for all forks that follow.
    if importlib.util.find_spec(library.partition(".")[0]) is None or not importlib.util.find_spec(
        library
    ):
        pytest.skip(f"{library} is not installed")


def warnings_of(service, tmp_path, code):
    (tmp_path / "made.py").write_text(code + WSGI)
    serve(service, workers=1, target="wsgi:made:application", directory=str(tmp_path))
    assert get(service.address, "/") == (200, b"ok")
    assert service.stop() == 0
    assert "(native)" not in service.log
    return [line for line in service.log.splitlines() if "while it was loaded" in line]


@pytest.mark.parametrize("what", NAMED)
def test_what_does_not_survive_the_fork_is_named(service, tmp_path, what):
    """By what it is, once; its threads are not listed beside it."""
    code, words = NAMED[what]
    if what == "grpc":
        demand("grpc")
    lines = warnings_of(service, tmp_path, code)
    assert len(lines) == len(words), lines
    for line, expected in zip(lines, words, strict=True):
        assert f"the application has made {expected} while it was loaded" in line


@pytest.mark.parametrize("what", HARMLESS)
def test_what_survives_the_fork_is_not_warned_of(service, tmp_path, what):
    """Libraries that end or start their threads around a fork, or when they are needed."""
    if what not in {"again", "manager"}:
        demand(what)
    assert warnings_of(service, tmp_path, HARMLESS[what]) == []


POOLED = """
import concurrent.futures, json, multiprocessing

def double(number):
    return 2 * number

def doubled():
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        return list(pool.map(double, [1, 2]))

def application(environ, start_response):
    start_response("200 OK", [])
    return [json.dumps([multiprocessing.get_start_method(), doubled()]).encode()]

class Hooks:
    @staticmethod
    def zygote_loaded():
        print("zygote_loaded:", doubled(), flush=True)
"""


def test_a_process_pool_with_the_default_start_method(service, tmp_path):
    """Its processes import the application's module: in the zygote, and in each worker with its own server."""
    (tmp_path / "pooled.py").write_text(POOLED)
    how = {"target": "wsgi:pooled:application", "directory": str(tmp_path)}
    serve(service, workers=2, more="hooks: pooled:Hooks\n", **how)
    method = multiprocessing.get_all_start_methods()[0]
    expected = ["forkserver" if sys.version_info >= (3, 14) else method, [2, 4]]
    for _ in range(3):
        status, body = get(service.address, "/")
        assert (status, json.loads(body)) == (200, expected)
    assert "zygote_loaded: [2, 4]" in service.log
