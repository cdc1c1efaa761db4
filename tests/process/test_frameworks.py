"""Applications of the frameworks that people use, reloaded under load: nothing is lost."""

import importlib.util
import socket

import pytest

from tests.process.load import Load
from tests.process.service import HERE, free_port

KINDS = {
    "flask": "wsgi",
    "django": "wsgi",
    "wagtail": "wsgi",
    "django_asgi": "asgi",
    "starlette": "asgi",
    "fastapi": "asgi",
    "quart": "asgi",
    "litestar": "asgi",
    "datasette": "asgi",
}
BODY = b"x" * 300_000


@pytest.fixture(params=KINDS)
def site(service, request):
    name = request.param
    package = name.partition("_")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    service.port = free_port()
    service.name = name
    config = service.configure(
        f"app: {{target: '{KINDS[name]}:frameworks:{name}', directory: {HERE / 'sites'}}}\n"
        f"listen: 127.0.0.1:{service.port}\nworkers: 2\nhttp: {{keep_alive: 1s}}\n"
    )
    service.start("--config", str(config))
    return service


def talk(port, data):
    """Return what the server sends after these bytes, until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(data)
        with sock.makefile("rb") as file:
            return file.read()


def test_reloads_under_load_lose_nothing(site):
    """Three reloads with kept and new connections: each answer is whole, and no exception is logged."""
    path = "/echo" if site.name == "datasette" else "/"
    with Load(("127.0.0.1", site.port), rate=100, path=path) as load:
        load.wait_for(50)
        for _ in range(3):
            answer = site.control("reload", "--fresh")
            assert answer.returncode == 0, answer.stderr
            load.wait_for(50)
    assert load.result.lost == 0, load.result.bad
    assert "Traceback" not in site.log


def test_uploads_and_streams_are_whole(site):
    """A body of 300 kB, and an answer in a hundred parts."""
    if site.name == "datasette":
        pytest.skip("it has no route for either")
    head = b"POST /upload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    answer = talk(site.port, head % len(BODY) + BODY)
    assert answer.partition(b"\r\n\r\n")[2] == b"300000"
    answer = talk(site.port, b"GET /stream HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert answer.partition(b"\r\n\r\n")[2].split() == [b"%d" % number for number in range(100)]
