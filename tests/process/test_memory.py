"""Memory, and what else processes share: real services and what they say and show."""

import json
import sys
from pathlib import Path

import pytest

from tests.process.service import HERE, ask, free_port

LEAKY = """
import os, socket, sqlite3, threading

threading.Thread(target=threading.Event().wait, name="metrics-flusher", daemon=True).start()
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
database = sqlite3.connect("shop.db")
database.execute("create table if not exists t (x)")

def zygote_loaded():
    if os.environ.get("CLOSE"):
        client.close()
        database.close()

def application(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
"""


def test_what_the_fork_would_share_is_named(service, tmp_path):
    """A thread by name, a connection by its peer, a database by its path; not if a hook closes them."""
    (tmp_path / "leaky.py").write_text(LEAKY)
    port = free_port()
    text = (
        f"app:\n  target: wsgi:leaky:application\n  directory: {tmp_path}\n"
        f"hooks: leaky\nlisten: 127.0.0.1:{port}\nworkers: 1\n"
    )
    service.start("--config", str(service.configure(text)))
    assert b"200 OK" in ask(("127.0.0.1", port))
    assert "1 thread(s) while it was loaded (metrics-flusher)" in service.log
    assert service.log.count("left a connection open") == 2
    assert f"{tmp_path}/shop.db, probably SQLite" in service.log
    assert ", 127.0.0.1:" in service.log
    service.log_path.write_text("")
    service.configure(text.replace("hooks:", "  environment: {CLOSE: yes}\nhooks:"))
    assert service.control("reload").returncode == 0
    assert "metrics-flusher" in service.log
    assert "left a connection open" not in service.log


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this interpreter has immortal objects")
def test_an_immortal_heap_on_311_is_refused_and_harms_nobody(service, tmp_path):
    """A start ends with the administrator's status, a reload fails; with auto both serve with a frozen heap."""
    port = free_port()
    text = f"app:\n  target: wsgi:echo:application\n  directory: {HERE}\nlisten: 127.0.0.1:{port}\n"
    service.start("--config", str(service.configure(text)))
    service.configure(text + "memory: {immortal: true}\n")
    answer = service.control("reload")
    assert answer.returncode == 78
    assert (
        "memory.immortal: the heap cannot be made immortal: it needs CPython 3.12" in answer.stderr
    )
    assert "set memory.immortal to auto" in answer.stderr
    assert b"200 OK" in ask(("127.0.0.1", port))
    service.configure(text + "memory: {immortal: auto}\n")
    assert service.control("reload").returncode == 0
    assert "the heap is frozen, not immortal (memory.immortal: auto" in service.log
    assert service.stop() == 0
    service.configure(text + "memory: {immortal: true}\n")
    service.start("--config", str(service.config), ready=False)
    assert service.wait() == 78


@pytest.mark.skipif(sys.version_info < (3, 12), reason="this interpreter has no immortal objects")
@pytest.mark.parametrize("value", ["true", "auto"])
def test_an_immortal_heap_serves_and_says_so(service, tmp_path, value):
    """Workers answer, are replaced, and end as ever; the log tells how many objects there are."""
    port = free_port()
    text = f"app:\n  target: wsgi:echo:application\n  directory: {HERE}\nlisten: 127.0.0.1:{port}\n"
    service.start("--config", str(service.configure(f"{text}memory: {{immortal: {value}}}\n")))
    for _ in range(2):
        assert b"200 OK" in ask(("127.0.0.1", port))
        assert service.control("reload", "--fresh").returncode == 0
    assert service.log.count("objects are immortal now") == 3
    assert service.stop() == 0
    assert "Traceback" not in service.log


def test_what_each_process_takes(service, tmp_path):
    """A table for people, the same for programs; growth is what a request has built."""
    (tmp_path / "grows.py").write_text(
        "kept = []\n"
        "loaded = bytearray(b'x' * (32 << 20))\n"
        "def application(environ, start_response):\n"
        "    kept.append(b'x' * (16 << 20))\n"
        "    start_response('200 OK', [])\n"
        "    return [b'ok']\n"
    )
    port = free_port()
    service.start(
        *("wsgi:grows:application", "--directory", str(tmp_path)),
        *("--listen", f"127.0.0.1:{port}", "--workers", "4"),
    )
    assert b"200 OK" in ask(("127.0.0.1", port))
    answer = service.control("memory", "--json")
    assert answer.returncode == 0, answer.stderr
    memory = json.loads(answer.stdout)
    assert not memory["problems"]
    processes = memory["processes"]
    assert [process["role"] for process in processes] == ["worker"] * 4 + ["zygote", "master"]
    assert {process["pid"] for process in processes} == {
        service.pid,
        service.zygote(),
        *service.workers(),
    }
    growths = sorted(process["growth"] >> 20 for process in processes[:4])
    assert growths[3] >= 16
    assert growths[2] <= 3
    for process in processes[:5]:
        assert process["shared"] >= 32 << 20
        assert process["uss"] + process["shared"] == process["rss"]
    assert memory["pss"] == sum(process["pss"] for process in processes)
    assert memory["unrelated"] > 4 * (32 << 20)
    assert memory["unrelated"] > memory["pss"] + 2 * (32 << 20)
    text = service.control("memory").stdout
    assert "worker 1" in text
    assert "as 4 unrelated processes: about" in text


MODULES = """
import sys
from pathlib import Path

def after_fork():
    global before
    before = set(sys.modules)

def worker_started():
    with open("imported", "a") as file:
        file.write(f"{sorted(set(sys.modules) - before)}\\n")

def application(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]

def handle(connection, peer):
    pass

async def asgi(scope, receive, send):
    pass
"""


@pytest.mark.parametrize(
    "target", ["wsgi:modules:application", "stream:modules:handle", "asgi:modules:asgi"]
)
def test_workers_import_nothing_at_their_start(service, tmp_path, target):
    """What they need is imported once, in the zygote, so that they share it."""
    (tmp_path / "modules.py").write_text(MODULES)
    port = free_port()
    text = (
        f"app:\n  target: {target}\n  directory: {tmp_path}\n"
        f"hooks: modules\nlisten: 127.0.0.1:{port}\nworkers: 2\n"
    )
    service.start("--config", str(service.configure(text)))
    assert (tmp_path / "imported").read_text() == "[]\n[]\n"


def test_the_master_is_small(service):
    """No OpenSSL, no YAML, no libsystemd, nothing of the workers: at most 30 MB, after a reload too."""
    port = free_port()
    text = f"app:\n  target: wsgi:echo:application\n  directory: {HERE}\nlisten: 127.0.0.1:{port}\n"
    service.start("--config", str(service.configure(text + "workers: 1\n")))
    for _ in range(2):
        maps = Path(f"/proc/{service.pid}/maps").read_text()
        for library in ("libssl", "libcrypto", "libsystemd", "yaml"):
            assert library not in maps
        master = json.loads(service.control("memory", "--json").stdout)["processes"][-1]
        assert master["role"] == "master"
        assert master["rss"] < 30_000_000
        assert master["uss"] < 18_000_000  # 16 today; more where each start compiles the files
        service.configure(text + "workers: 1\nlimits: {requests: 100}\n")
        assert service.control("reload", "--fresh").returncode == 0
