"""The attack table, read as a connection reads: at once, behind another request, byte by byte."""

import pytest

from preforkd.http.head import RequestError
from tests.http.attacks import ATTACKS
from tests.http.reading import Reading

BEFORE = b"GET /first HTTP/1.1\r\nHost: h\r\n\r\n"


def outcome(data, size):
    """Return how many requests were complete, and the status of the refusal; None: it waits."""
    reading = Reading()
    try:
        for at in range(0, len(data), size):
            reading.feed(data[at : at + size])
    except RequestError as error:
        return len(reading.requests), error.status[:3]
    return len(reading.requests), None


def test_the_table_is_long_enough():
    """At least 150 different requests."""
    assert len({data for _, data, _ in ATTACKS}) >= 150


@pytest.mark.parametrize(
    ("data", "status"), [(d, s) for _, d, s in ATTACKS], ids=[n for n, _, _ in ATTACKS]
)
@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_the_expected_answer(data, status, pipelined, size):
    """Refused with the status in the table and nothing served, or answered as a whole."""
    whole = (BEFORE if pipelined else b"") + data
    complete, refusal = outcome(whole, size)
    assert complete == pipelined + (status == "200")
    assert refusal == (None if status == "200" else status)
