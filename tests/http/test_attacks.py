"""The attack table against the engine: at once, behind another request, byte by byte, and in any pieces."""

import random

import pytest

from preforkd.http.engine import EndOfRequest, RequestError
from preforkd.http.states import State
from tests.http.attacks import ATTACKS
from tests.http.delivery import MODES, expected_statuses
from tests.http.reading import Sink, engine


def statuses(pieces):
    """Return 200 for each request that is complete, and the status of the refusal."""
    made, answers = engine(), []
    try:
        for piece in pieces:
            made.receive(piece)
            while (event := made.next_event()) is not None:
                if isinstance(event, EndOfRequest) or made.client is State.DONE:
                    answers.append("200")
                    made.answer_begun()
                    made.answer_ended(made.parsed.head.keep_alive)
                else:
                    made.sink = Sink()
    except RequestError as error:
        made.refused()
        answers.append(error.status[:3])
    return answers


def test_the_table_is_long_enough():
    """At least 400 different requests; the name of each is its own."""
    rows = [row for rows in ATTACKS.values() for row in rows]
    assert len({row.data for row in rows}) >= 400
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.why for row in rows if row.asgi)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ATTACKS)
def test_the_expected_answers(kind, mode):
    """Refused with the status in the table and nothing served, or answered as a whole and followed by others."""
    rows, chance = ATTACKS[kind], random.Random(kind)
    found = {row.name: statuses(MODES[mode](row, chance)) for row in rows}
    assert found == {row.name: expected_statuses(row, mode) for row in rows}
