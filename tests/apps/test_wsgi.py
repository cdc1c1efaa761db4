"""From requests to environs, from iterables to responses."""

import bz2
import contextlib
import gzip
import io
import tempfile
from dataclasses import dataclass

import pytest

from preforkd.apps import wsgi


@dataclass
class Head:
    method: str = "GET"
    target: bytes = b"/"
    version: str = "1.1"
    headers: tuple = ((b"host", b"h"),)


class Response:
    """Writes down what it is told."""

    head_sent = False
    started = False
    over = False
    flaw = ""

    def __init__(self):
        self.parts = []

    def start_response(self, status, headers, exc_info=None):
        self.started = True
        self.status = status
        return self.write

    def send_whole(self, data, *, last=False):
        self.head_sent = True
        self.parts.append((data, True))

    def write(self, data):
        self.head_sent = True
        self.parts.append((data, False))

    def write_file(self, file, offset, count):
        self.parts.append((file, offset, count))

    def finish(self):
        pass


def environ(**changes):
    """Return the environ of a request."""
    return wsgi.environ_for(Head(**changes), {})


def test_the_target_becomes_path_and_query():
    """Percent-decoded path as latin-1, raw query."""
    seen = environ(target=b"/a%20%C3%A4/b?x=%20&y")
    assert seen["PATH_INFO"] == "/a \xc3\xa4/b"
    assert seen["QUERY_STRING"] == "x=%20&y"
    absolute = environ(target=b"http://other:80/p?q")
    assert absolute["PATH_INFO"] == "/p"
    assert environ(target=b"http://other?q")["PATH_INFO"] == "/"
    assert environ(target=b"http://other?q")["QUERY_STRING"] == "q"
    assert environ(target=b"*", method="OPTIONS")["PATH_INFO"] == ""


def test_headers_become_variables():
    """Joined when repeated, cookies by semicolons; content headers without HTTP_."""
    headers = (
        (b"content-type", b"a/b"),
        (b"content-length", b"3"),
        (b"x-y", b"1"),
        (b"x-y", b"2"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
    )
    seen = environ(headers=headers)
    assert seen["CONTENT_TYPE"] == "a/b"
    assert seen["CONTENT_LENGTH"] == "3"
    assert seen["HTTP_X_Y"] == "1,2"
    assert seen["HTTP_COOKIE"] == "a=1; b=2"
    assert "HTTP_CONTENT_LENGTH" not in seen


def test_a_chunked_body_has_a_length_by_now():
    """An application that only understands Content-Length can read it."""
    seen = environ(headers=((b"transfer-encoding", b"chunked"),))
    wsgi.set_body(seen, io.BytesIO(b"hello"), 5)
    assert seen["CONTENT_LENGTH"] == "5"
    assert "HTTP_TRANSFER_ENCODING" not in seen


def call(application):
    """Return the response of an application."""
    response = Response()
    wsgi.call(application, {}, response)
    return response


def test_one_part_is_the_whole_and_more_are_sent_as_they_come():
    """A list of one has a known length; empty parts are not sent."""

    def one(environ, start_response):
        start_response("200 OK", [])
        return [b"x"]

    def many(environ, start_response):
        start_response("200 OK", [])
        yield b"a"
        yield b""
        yield b"b"

    assert call(one).parts == [(b"x", True)]
    assert call(many).parts == [(b"a", False), (b"b", False)]


def test_the_iterable_is_closed_whatever_happens():
    """PEP 3333: close() is called after an error too."""
    closed = []

    class Body:
        def __iter__(self):
            raise ValueError

        def close(self):
            closed.append(1)

    def application(environ, start_response):
        start_response("200 OK", [])
        return Body()

    with pytest.raises(ValueError, match=r"^$"):
        call(application)
    assert closed == [1]


def test_a_real_file_is_not_read_here():
    """It goes by its descriptor, from where it stands, and is closed when it has been sent."""
    with tempfile.TemporaryFile() as file:
        file.write(b"0123456789")
        file.seek(4)

        def application(environ, start_response):
            start_response("200 OK", [])
            return wsgi.FileWrapper(file)

        response = Response()
        after = wsgi.call(application, {}, response)
        assert response.parts == [(file, 4, 6)]
        assert not file.closed
        after()
        assert file.closed


def opened(path):
    """Open a file in each way in which its content is what `read` returns."""
    yield path.open("rb")
    yield path.open("rb", buffering=0)
    yield path.open("r+b")
    named = tempfile.NamedTemporaryFile()  # noqa: SIM115
    spooled = tempfile.SpooledTemporaryFile(max_size=10)  # noqa: SIM115
    for file in (named, spooled):
        file.write(path.read_bytes())  # not flushed: what is in the buffer counts, too
        file.seek(0)
        yield file


def test_files_as_they_are_opened_are_not_read_here(tmp_path):
    """Buffered or not, for reading or both, and tempfile's wrappers of them."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 1000)
    for file in opened(path):
        with file:
            file.read(4)
            assert wsgi.FileWrapper(file).region() == (4, 9996), file


class Shouting(io.FileIO):
    """A file whose content is not what is in it."""

    def read(self, size=-1):
        return super().read(size).upper()


class Wrapped:
    """Passes on what it has not, and has a `read` of its own."""

    def __init__(self, file):
        self.file = file

    def read(self, size=-1):
        return self.file.read(size).upper()

    def __getattr__(self, name):
        return getattr(self.file, name)


def others(path):
    """Open a file in ways in which its descriptor does not tell its content."""
    yield gzip.open(path)  # noqa: SIM115
    yield bz2.open(path)  # noqa: SIM115
    yield path.open()
    yield Shouting(str(path))
    yield io.BufferedReader(Shouting(str(path)))
    yield Wrapped(path.open("rb"))
    yield path.open("ab")
    yield open("/sys/kernel/mm/transparent_hugepage/enabled", "rb")  # noqa: SIM115
    own = path.open("rb")
    own.read = lambda size=-1: b""
    yield own
    short = tempfile.SpooledTemporaryFile(max_size=1000)  # noqa: SIM115
    short.write(b"in memory")
    yield short


def test_an_object_with_a_read_of_its_own_is_read(tmp_path):
    """Whatever descriptor it gives: gzip's is that of the compressed file."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 1000)
    for file in others(path):
        with contextlib.closing(file):
            assert wsgi.FileWrapper(file).region() is None, file


def test_a_wrapper_that_is_made_into_another_is_iterated():
    """A class that inherits from the wrapper may give other blocks than the file has."""

    class Shout(wsgi.FileWrapper):
        def __next__(self):
            return super().__next__().upper()

    with tempfile.TemporaryFile() as file:
        file.write(b"abc")
        file.seek(0)

        def application(environ, start_response):
            start_response("200 OK", [])
            return Shout(file)

        assert call(application).parts == [(b"ABC", False)]


def test_a_body_that_is_not_what_was_said_is_told(caplog):
    """The response knows; the log says it."""

    class Short(Response):
        flaw = "less"

    def one(environ, start_response):
        start_response("200 OK", [])
        return [b"x"]

    wsgi.call(one, {}, Short())
    wsgi.call(lambda environ, start_response: iter(one(environ, start_response)), {}, Short())
    assert [record.message for record in caplog.records] == [
        "the application sent less than its Content-Length; closing the connection"
    ] * 2


def test_the_file_wrapper_reads_in_blocks():
    """And closes its file."""
    file = io.BytesIO(b"x" * 10)
    wrapper = wsgi.FileWrapper(file, 4)
    assert [len(block) for block in wrapper] == [4, 4, 2]
    wrapper.close()
    assert file.closed


def test_long_names_are_not_remembered():
    """Only an attacker has them, and may have many."""
    before = wsgi._cached_key.cache_info()
    name = b"x-" + b"y" * 100
    assert environ(headers=((name, b"1"),))["HTTP_X_" + "Y" * 100] == "1"
    assert wsgi._cached_key.cache_info() == before
