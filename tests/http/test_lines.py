"""Lines of heads: valid or refused one by one, with the answer of the whole head."""

import random

import pytest

from preforkd.http.head import Bounds, HeadParser, RequestError
from preforkd.http.lines import is_authority, refuse_early

BOUNDS = Bounds(max_line=60, max_field=40, max_header=160, max_fields=4)
PARSER = HeadParser(BOUNDS)
PIECES = [
    b"GET", b" ", b"/", b"/a%41", b"http://h/", b" HTTP/1.1", b" HTTP/1.7", b" HTTP/2.0", b"\n", b"\r", b"\r\n",
    b"\r\n", b"\r\n", b"\r\n\r\n", b"Host: h\r\n", b"Host: u@h\r\n", b"X: y\r\n", b"X : y", b"X_Y: z\r\n",
    b"Content-Length: 3\r\n", b"Content-Length: x", b"Transfer-Encoding: gzip", b"BREW", b"\0", b"A" * 30,
    b"a: " + b"b" * 38,
]  # fmt: skip
BEGINNINGS = [
    b"",
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/1.1\r\n",
    b"GET http://h/ HTTP/1.2\r\nHost: h\r\n",
]


def refusal(data, cuts=()):
    """Return status and reason of the refusal of a head that arrives in these pieces; None: it is valid."""
    checked = before = 0
    try:
        for cut in sorted({*cuts, len(data)}):
            end = data.find(b"\r\n\r\n", 0, cut)
            if end >= 0:
                PARSER.parse(data[: end + 4])
                return None
            checked = refuse_early(data[:cut], BOUNDS, checked, before)
            before = cut
    except RequestError as error:
        return error.status, error.reason
    return "incomplete"


def test_the_answer_does_not_depend_on_the_pieces():
    """The first invalid line decides: at once, byte by byte, and in any pieces."""
    chance, answers = random.Random(9112), set()
    for _ in range(4000):
        data = chance.choice(BEGINNINGS) + b"".join(chance.choices(PIECES, k=chance.randint(1, 14)))
        if data[:1] == b"\r":
            continue  # empty lines before a request are removed first
        whole = refusal(data)
        assert refusal(data, range(1, len(data))) == whole, data
        assert refusal(data, chance.choices(range(1, len(data) + 1), k=3)) == whole, data
        answers.add(whole)
    assert len(answers) >= 12


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"GET / HTTP/2.0\r\n", "505"),
        (b"BREW / HTTP/1.1\r\n", "501"),
        (b"DESCRIBE / HTTP/1.1\r\n", "501"),
        (b"brew / HTTP/1.1\r\n", "400"),
        (b"CONNECT h:1 HTTP/1.1\r\n", "501"),
        (b"GET /% HTTP/1.1\r\n", "400"),
        (b"GET * HTTP/1.1\r\n", "400"),
        (b"GET / HTTP/1.1\n", "400"),
        (b"\x16", "400"),
        (b"GET / HTTP/1.1\r\nX : y\r\n", "400"),
        (b"GET / HTTP/1.1\r\nHost:\r\n", "400"),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n", "400"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1%018d\r\n" % 0, "413"),
        (b"GET / HTTP/1.1\r\nX: y\n", "400"),
        (b"GET /" + b"a" * 55, "414"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 39, "431"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5, "431"),
        (b"GET / HTTP/1.1\r\n" + (b"A: " + b"b" * 33 + b"\r\n") * 3 + b"C: " + b"d" * 27, "431"),
    ],
)
def test_an_invalid_line_is_refused_before_the_head_is_complete(lines, status):
    """With its last byte, and not a byte before."""
    with pytest.raises(RequestError) as caught:
        refuse_early(lines, BOUNDS)
    assert caught.value.status[:3] == status
    if lines[:-1]:
        refuse_early(lines[:-1], BOUNDS)


def test_a_line_is_checked_once():
    """What was checked is not read again: a long head in small pieces takes linear time."""
    head = b"GET / HTTP/1.1\r\nHost: h\r\n"
    checked = refuse_early(head, BOUNDS)
    assert checked == len(head)
    assert refuse_early(b"?" * (len(head) - 1) + b"\nX: y\r\nZ", BOUNDS, checked) == checked + 6


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (b"h", True),
        (b"h:", True),
        (b"h:65535", True),
        (b"h:65536", False),
        (b"h:000080", False),
        (b"", False),
        (b":80", False),
        (b"[::1]", True),
        (b"[::ffff:1.2.3.4]:1", True),
        (b"[fe80::1%25eth0]", False),
        (b"[fe80::1%eth0]", False),
        (b"[1.2.3.4]", False),
        (b"[v1.x]", True),
        (b"[Vab.a:b!$]:80", True),
        (b"[v.x]", False),
        (b"[vg.x]", False),
        (b"[v1.]", False),
        (b"[v1.a/b]", False),
        (b"[v1.a%20]", False),
        (b"u@h", False),
        (b"%zz", False),
    ],
)
def test_authorities(text, valid):
    """RFC 3986, 3.2: registered names, addresses and IPvFuture, with a port; no user, no zone, not empty."""
    assert is_authority(text) is valid
