"""Memory, and what else processes share: real services and what they say and show."""

import pytest
from service import ask, free_port

pytestmark = pytest.mark.process

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
