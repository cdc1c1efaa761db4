"""Applications that others have written, or written as others write them, served by the program."""

import base64
import gzip
import hashlib
import http.cookiejar
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import pytest

from tests.process.service import HERE, free_port

SITES = HERE / "sites"


class Site:
    """A served application, and a client that keeps cookies."""

    def __init__(self, service, target, environ=None):
        self.service = service
        self.port = free_port()
        config = service.configure(
            f"app: {{target: '{target}', directory: {SITES}}}\nlisten: 127.0.0.1:{self.port}\n"
            "http: {keep_alive: 1s}\n"  # how long a reload lets idle connections linger
        )
        service.start("--config", str(config), environ=environ)
        jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(jar), urllib.request.ProxyHandler({})
        )
        self.cookies = jar

    def ask(self, path, data=None, method=None, **headers):
        """Return status, headers and body; redirections are followed."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, names, method=method
        )
        try:
            with self._opener.open(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def json(self, path, data=None, **headers):
        status, _, body = self.ask(path, data, **headers)
        assert status == 200, body
        return json.loads(body)


def multipart(fields, files):
    """Return a form with files as its content type and body."""
    boundary = "frontier"
    parts = []
    for name, value in fields.items():
        parts.append(f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode())
    for name, data in files.items():
        head = f'Content-Disposition: form-data; name="{name}"; filename="{name}.bin"\r\n'
        parts.append(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + data)
    body = b"".join(b"--frontier\r\n" + part + b"\r\n" for part in parts) + b"--frontier--\r\n"
    return f"multipart/form-data; boundary={boundary}", body


def test_httpbin(service):
    """What it says of requests and how it answers is what httpbin promises."""
    pytest.importorskip("httpbin", reason="httpbin is not installed (pip install httpbin)")
    site = Site(service, "wsgi:httpbin:app")
    assert site.json("/get?a=1&a=2&b=%C3%A4")["args"] == {"a": ["1", "2"], "b": "ä"}
    assert site.json("/post", b"x=1&y=2")["form"] == {"x": "1", "y": "2"}
    sent = site.json("/put", b'{"a": [1]}', method="PUT", Content_Type="application/json")
    assert sent["json"] == {"a": [1]}
    kind, body = multipart({"f": "v"}, {"up": b"data" * 100_000})
    got = site.json("/post", body, Content_Type=kind)
    assert (got["form"], len(got["files"]["up"])) == ({"f": "v"}, 400_000)
    chunks = (b"part" for _ in range(1000))
    got = site.json("/anything/x", chunks, Content_Type="text/plain", Transfer_Encoding="chunked")
    assert got["data"] == "part" * 1000
    assert gzip.decompress(site.ask("/gzip")[2]).startswith(b"{")
    assert len(site.ask("/stream/20")[2].splitlines()) == 20
    assert len(site.ask("/stream-bytes/100000")[2]) == 100_000
    assert site.ask("/drip?numbytes=5&duration=0.2")[2] == b"*****"
    status, headers, body = site.ask("/range/1024", Range="bytes=10-19")
    assert (status, len(body), headers["Content-Range"]) == (206, 10, "bytes 10-19/1024")
    assert site.json("/redirect/3")["url"].endswith("/get")
    assert site.json("/absolute-redirect/2")["url"].endswith("/get")
    assert site.json("/cookies/set?k=v")["cookies"] == {"k": "v"}
    token = base64.b64encode(b"u:p").decode()
    assert site.json("/basic-auth/u/p", Authorization=f"Basic {token}")["authenticated"]
    assert site.ask("/basic-auth/u/p")[0] == 401
    for status in (204, 304, 404, 418, 500, 503):
        assert site.ask(f"/status/{status}")[0] == status
    assert site.ask("/cache", If_None_Match="x")[0] == 304
    assert site.ask("/image/png")[2].startswith(b"\x89PNG")
    assert "∮" in site.ask("/encoding/utf8")[2].decode()
    assert site.ask("/get", method="HEAD")[2] == b""
    assert "GET" in site.ask("/get", method="OPTIONS")[1]["Allow"]
    assert "Traceback" not in service.log


def test_flask_sessions(service):
    """A session is kept by its cookie, through a reload too; uploads, files and streams are whole."""
    pytest.importorskip("flask")
    site = Site(service, "wsgi:flask_site:app")
    assert site.ask("/login", b"name=ada")[2] == b"ada 1"
    assert service.control("reload", "--fresh").returncode == 0
    assert site.ask("/")[2] == b"ada 2"
    data = os.urandom(3_000_000)
    kind, body = multipart({}, {"file": data})
    assert site.ask("/upload", body, Content_Type=kind)[2] == data
    assert site.ask("/stream?word=w")[2] == b"w 0\nw 1\nw 2\nw 3\nw 4\n"
    assert "Traceback" not in service.log


def test_django_with_admin_and_uploads(service, tmp_path):
    """Log in to the admin, add a user there, see it; small and large uploads; a download."""
    pytest.importorskip("django")
    environ = {"SITE_FOLDER": str(tmp_path), "PYTHONPATH": str(SITES)}
    command = [sys.executable, "-c", "import django_site; django_site.prepare()"]
    subprocess.run(command, env={**os.environ, **environ}, check=True)
    site = Site(service, "wsgi:django_site:application", environ)

    def submit(path, **fields):
        form = site.ask(path)[2].decode()
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)[1]
        data = urllib.parse.urlencode({"csrfmiddlewaretoken": token, **fields}).encode()
        return site.ask(path, data)

    status, _, body = submit("/admin/login/?next=/admin/", username="admin", password="secret")
    assert status == 200
    assert b"Site administration" in body
    new = {"username": "grace", "password1": "p8v-long-enough", "password2": "p8v-long-enough"}
    status, _, body = submit("/admin/auth/user/add/", usable_password="true", **new)
    assert status == 200
    assert b"was added successfully" in body
    assert b"grace" in site.ask("/admin/auth/user/")[2]
    assert site.ask("/admin/auth/user/add/", b"username=x")[0] == 403  # without the token
    for size in (1000, 6_000_000):
        data = os.urandom(size)
        kind, body = multipart({"note": "n"}, {"file": data})
        answer = site.json("/upload", body, Content_Type=kind)
        digest = hashlib.sha256(data).hexdigest()
        assert answer["fields"] == {"note": "n"}
        assert answer["files"]["file"] == {"size": size, "sha256": digest, "on_disk": size > 10_000}
    _, headers, body = site.ask("/download")
    assert body == b"0123456789" * 100_000
    assert "digits.txt" in headers["Content-Disposition"]
    assert "Traceback" not in service.log


def test_fastapi_with_websockets(service, tmp_path):
    """JSON, streams and WebSockets; a reload and a stop tell those who talk, and wait for nobody."""
    pytest.importorskip("fastapi")
    client = pytest.importorskip("websockets.sync.client")
    closed = pytest.importorskip("websockets.exceptions").ConnectionClosed
    site = Site(service, "asgi:fastapi_site:app")
    posted = json.dumps({"name": "n", "price": 2}).encode()
    got = site.json("/items", posted, Content_Type="application/json")
    assert got == {"got": "n", "price": 2.0, "ready": True}
    assert site.ask("/items", b"{}", Content_Type="application/json")[0] == 422
    assert site.ask("/stream")[2] == b"0\n1\n2\n3\n4\n"

    def talk():
        return client.connect(f"ws://127.0.0.1:{site.port}/talk", proxy=None)

    with talk() as first:
        first.send("a" * 100_000)
        assert first.recv() == "A" * 100_000
        assert service.control("reload", "--fresh").returncode == 0
        with pytest.raises(closed) as caught:
            first.recv(30)
        assert caught.value.rcvd.code == 1012  # service restart: come again
        with talk() as second:
            second.send("b")
            assert second.recv() == "B"
            assert service.stop() == 0
            with pytest.raises(closed):
                second.recv(30)
    assert "is killed" not in service.log
    assert "Traceback" not in service.log
