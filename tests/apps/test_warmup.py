"""Warm-up: functions and requests in the zygote, and what becomes of those that fail."""

import sys

import pytest

from preforkd.apps import warmup
from preforkd.errors import ApplicationError, ConfigurationError


class Site:
    """A WSGI application that keeps what it was asked, and answers as it is told."""

    def __init__(self, status="200 OK", body=(b"a", b"b"), fail=None):
        self.environs, self.steps = [], []
        self.status, self.body, self.fail = status, body, fail

    def __call__(self, environ, start_response):
        self.environs.append(environ)
        if self.fail:
            raise self.fail
        return self._answer(start_response)

    def _answer(self, start_response):
        start_response(self.status, [])
        try:
            yield from self.body
            self.steps.append("to the end")
        finally:
            self.steps.append("closed")


def test_a_path_is_a_correct_request():
    """PEP 3333's environ (its own validator agrees), and the answer is read and closed."""
    from wsgiref.validate import validator

    site = Site()

    headers = [("Content-Type", "text/plain")]
    site._answer = lambda start_response: (start_response(site.status, headers), [b"x"])[1]
    warmup.run(["/admin/login/?next=%2F"], validator(site), required=True)
    (environ,) = site.environs
    assert environ["REQUEST_METHOD"] == "GET"
    assert environ["PATH_INFO"] == "/admin/login/"
    assert environ["QUERY_STRING"] == "next=%2F"
    assert environ["HTTP_HOST"] == "localhost"
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["preforkd.warm_up"] is True


def test_the_answer_is_read_to_its_end_and_closed():
    """A lazy answer does its work, and what hangs on its close happens."""
    site = Site()
    warmup.run(["/"], site, required=True)
    assert site.steps == ["to the end", "closed"]


def test_a_url_names_host_and_scheme():
    """For applications that know their hosts, or send everybody to https."""
    site = Site()
    warmup.run(["https://shop.example:8443/cart"], site, required=True)
    (environ,) = site.environs
    assert environ["HTTP_HOST"] == "shop.example:8443"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("shop.example", "8443")
    assert (environ["wsgi.url_scheme"], environ["PATH_INFO"]) == ("https", "/cart")


def test_requests_are_below_the_mount_prefix():
    """As those of clients, whether the entry names it or not."""
    site = Site()
    warmup.run(["/shop/a", "/b"], site, required=True, prefix="/shop")
    warmup.repeat(["/c"], site, "/shop")
    seen = [(environ["SCRIPT_NAME"], environ["PATH_INFO"]) for environ in site.environs]
    assert seen == [("/shop", "/a"), ("/shop", "/b"), ("/shop", "/c")]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module to name functions of."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "warm_site.py").write_text(
        "done = []\ndef warm(): done.append(1)\ndef broken(): raise KeyError('cache')\nx = 3\n"
        "async def later(): done.append(2)\n"
    )
    yield
    sys.modules.pop("warm_site", None)


def test_functions_are_called(module):
    """Without arguments, each time they are named."""
    warmup.run(["warm_site:warm", "warm_site:warm"], None, required=True)
    assert sys.modules["warm_site"].done == [1, 1]


@pytest.mark.parametrize(
    ("entry", "kind", "words"),
    [
        (
            "warm_site:broken",
            ApplicationError,
            r"KeyError: 'cache' \(in broken, .*warm_site.py:3\)",
        ),
        ("warm_site:x", ConfigurationError, "is not callable, it is of type int"),
        (
            "warm_site:later",
            ConfigurationError,
            "later is asynchronous; warm-up functions are not awaited",
        ),
        ("warm_site:y", ConfigurationError, "no attribute 'y'"),
        ("warm_sight:y", ConfigurationError, "no module named 'warm_sight'"),
        ("/", ApplicationError, "GET / was answered with 503 Gone Fishing"),
    ],
)
def test_what_fails_is_told_and_does_not_stop_the_rest(module, caplog, entry, kind, words):
    """One warning with the last line and the place; unless it is required."""
    site = Site("503 Gone Fishing")
    warmup.run([entry, "warm_site:warm"], site, required=False)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message.startswith("app.warm_up: ")
    with pytest.raises(kind, match=words) as caught:
        warmup.run([entry], site, required=True)
    assert caught.value.message in record.message
    assert sys.modules["warm_site"].done == [1]


def test_an_application_that_raises_or_says_nothing(caplog):
    """Its exception is told as the application's; so is an answer without a status."""
    with pytest.raises(ApplicationError, match=r"failed on GET /x: .*SystemExit"):
        warmup.run(["/x"], Site(fail=SystemExit(3)), required=True)
    with pytest.raises(ApplicationError, match="did not call start_response"):
        warmup.run(["/x"], lambda environ, start_response: [], required=True)


def test_a_host_that_is_not_known_comes_with_a_hint():
    """400 is what Django answers to a Host that is not in ALLOWED_HOSTS."""
    with pytest.raises(ApplicationError, match="write a URL"):
        warmup.run(["/"], Site("400 Bad Request"), required=True)


def test_repeated_are_requests_only_and_nothing_is_told_twice(caplog):
    """Functions are called once; a request that fails is sent, and kept quiet about."""
    site = Site(fail=ValueError("no"))
    warmup.repeat(["/a", "nowhere:function", "/b"], site)
    assert [environ["PATH_INFO"] for environ in site.environs] == ["/a", "/b"]
    assert not caplog.records
