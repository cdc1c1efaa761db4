"""Bodies: found to their end, kept in memory or in a file."""

import errno
import io

import httptools
import pytest
from hypothesis import given, settings, strategies as st

from preforkd.http import body
from preforkd.http.body import BodyStore, BudgetError, StorageError, framing
from preforkd.http.head import CHUNKED, Bounds, Budget, RequestError

BOUNDS = Bounds(max_field=200, max_header=400, max_fields=3, max_body=1000, spool=100)


def take(*pieces, bounds=BOUNDS):
    """Return the body in chunks, and what lies behind it."""
    store, frame = BodyStore(bounds), framing(CHUNKED, bounds)
    rest = b""
    try:
        for piece in pieces:
            end = frame.take(piece, 0, store)
            rest += piece[end:]
    except RequestError:
        store.close()
        raise
    assert frame.done
    with store.finish() as file:
        return file.read(), rest


def test_chunks_are_put_together():
    """Extensions and trailers are dropped, what follows is left."""
    data = b'5;a=b;c="d e"\r\nhello\r\n01\r\n!\r\n0\r\nX-T: 1\r\n\r\nGET /'
    assert take(data) == (b"hello!", b"GET /")
    assert take(*(data[i : i + 1] for i in range(len(data)))) == (b"hello!", b"GET /")


def test_a_large_body_waits_in_a_file():
    """Above the threshold; what came before is in it."""
    store = BodyStore(BOUNDS)
    store.write(b"a" * 60)
    store.write(b"b" * 60)
    file = store.finish()
    assert file.fileno() > 2
    assert file.read() == b"a" * 60 + b"b" * 60
    file.close()


def test_a_full_disk_is_told(monkeypatch):
    """As an error of its own, which fails this request and nothing else."""

    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(body.tempfile, "TemporaryFile", full)
    store = BodyStore(BOUNDS)
    with pytest.raises(StorageError, match="No space left"):
        store.write(b"a" * 101)
    store.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b" 1\r\n", b"1 \r\n", b"1\n", b"1\r\r\n", b"1_0\r\n",
        b"g\r\n", b"1;\r\n", b"1;a=\r\n", b"1;a b\r\n", b"1;a=\x00\r\n", b"1 ;a \r\n",
        b'1;a="\r\n', b'1;a="\\"\r\n', b"1;a=b c\r\n", b'1;a="\x7f"\r\n', b"1;a\n",
        b"1\r\nab\r\n", b"1\r\na\n", b"1\r\na\rb", b"1\r\na0\r\n\r\n", b"2\r\na\r\n0",
        b"0\r\nX : 1\r\n\r\n", b"0\r\n a: b\r\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\nX: \x00\r\n\r\n", b"0\r\n\n",
        b"0\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n\r\n", b"1" * 16 + b"\r\n", b"1;" + b"a" * 300,
        b"FFFFFFFFFFFFFFF\r\n" + b"a" * 1001, b"0\r\nX: " + b"a" * 300,
    ],
)  # fmt: skip
def test_tricks_with_chunks_are_refused(data):
    """At once and byte by byte."""
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        with pytest.raises(RequestError):
            take(*pieces)


@pytest.mark.parametrize("blanks", [b"", b" ", b"\t "])
def test_extensions_may_have_blanks_and_quoted_pairs(blanks):
    """RFC 9112, 7.1.1: a recipient parses what it does not know, bad whitespace included."""
    for value in (b"b", b'"x y"', b'"x\\"y;\\\\"', b'"\xe4\t"'):
        line = b"2" + blanks.join((b"", b";", b"a", b"=", value))
        assert take(line + b"\r\nhi\r\n0;z\r\n\r\n") == (b"hi", b"")


def test_a_flood_of_tiny_chunks_is_refused():
    """Each costs more than it brings; 5,000 small ones of a slow producer, or chunks of a line each, do not."""
    bounds = Bounds()
    with pytest.raises(RequestError, match="too small"):
        take(b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n", bounds=bounds)
    assert len(take(b"1\r\na\r\n" * 5000 + b"0\r\n\r\n", bounds=bounds)[0]) == 5000
    assert len(take(b"9\r\n12345678\n\r\n" * 20_000 + b"0\r\n\r\n", bounds=bounds)[0]) == 180_000


class _Oracle:
    def __init__(self):
        self.body = b""
        self.complete = False

    def on_body(self, data):
        self.body += data

    def on_message_complete(self):
        self.complete = True


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from([b"0", b"1", b"2", b"a", b"\r\n", b"\r", b"\n", b";", b"x=y", b"\r\n\r\n"])
    )
)
def test_what_we_accept_llhttp_understands_alike(parts):
    """Whatever is complete for us has the same content for llhttp: never two opinions."""
    data = b"".join(parts)
    store, frame = BodyStore(Bounds()), framing(CHUNKED, Bounds())
    try:
        end = frame.take(data, 0, store)
    except RequestError:
        return
    if not frame.done:
        return
    oracle = _Oracle()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    httptools.HttpRequestParser(oracle).feed_data(head + data[:end])
    assert oracle.complete
    assert oracle.body == store.finish().read()


def test_many_small_parts_cost_what_they_hold():
    """A body that comes byte by byte is kept as one, not as thousands of objects."""
    store = BodyStore(Bounds(spool=10_000))
    for number in range(9_000):
        store.write(bytes([number % 256]))
        assert len(store._parts) < 16
    assert store.finish().read() == bytes(number % 256 for number in range(9_000))


def test_bodies_share_the_room_in_files():
    """Who finds none is refused; a body has its room until it is closed, by whoever has it."""
    bounds = Bounds(spool=10, budget=Budget(memory=1000, files=100))
    first, second = BodyStore(bounds), BodyStore(bounds)
    first.write(b"a" * 60)
    second.write(b"b" * 9)
    with pytest.raises(BudgetError, match=r"http\.spool_total"):
        second.write(b"b" * 40)
    second.close()
    file = first.finish()
    third = BodyStore(bounds)
    third.write(b"c" * 40)
    with pytest.raises(BudgetError):
        third.write(b"c")
    file.close()
    file.close()
    third.write(b"c" * 60)
    with third.finish() as file:
        assert file.read() == b"c" * 100


def test_memory_for_bodies_has_an_end():
    """Small ones are kept in files then, and in memory again when there is room."""
    bounds = Bounds(spool=1000, budget=Budget(memory=100, files=1000))
    first, second, third = (BodyStore(bounds) for _ in range(3))
    first.write(b"a" * 60)
    second.write(b"b" * 60)
    with second.finish() as file:
        assert file.fileno() > 2
    with first.finish() as memory:
        assert memory.read() == b"a" * 60
    third.write(b"c" * 60)
    assert isinstance(third.finish(), io.BytesIO)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1, 7, 30, 200, -1, -2])), max_size=40)
)
def test_what_bodies_take_is_given_back(steps):
    """Whatever they were and however they ended, all room is free afterwards; theirs is never less."""
    budget = Budget(memory=150, files=400)
    bounds = Bounds(spool=50, max_body=300, budget=budget)
    stores, files = [BodyStore(bounds) for _ in range(3)], []
    for index, what in steps:
        store = stores[index]
        if what > 0:
            try:
                store.write(b"x" * what)
                continue
            except (RequestError, StorageError):
                store.close()
        elif what == -1:
            store.close()
        else:
            files.append(store.finish())
        stores[index] = BodyStore(bounds)
    for open_one in (*stores, *files):
        open_one.close()
    assert budget._left == {"memory": 150, "files": 400}
