"""Random conversations with the engine, made of the rows of the attack table, from a fixed seed.

``PREFORKD_FUZZ`` is a number of conversations: more of them, for a night.
"""

import os
import random

from preforkd.http.engine import EndOfRequest, RequestError
from preforkd.http.states import State
from tests.http.attacks import ATTACKS
from tests.http.reading import Sink, engine

CONVERSATIONS = int(os.environ.get("PREFORKD_FUZZ", "1500"))
ROWS = [row for rows in ATTACKS.values() for row in rows]
VALID = [row.data for row in ROWS if row.expected == "200"]
ALL = [row.data for row in ROWS]
TOKENS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b":",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b";",
    b",",
    b"HTTP/1.1",
    b"\xff",
    b"1",
)


def conversation(chance):
    """Return requests, most of them valid; some are spliced with another, or damaged."""
    data = b"".join(
        chance.choice(VALID if chance.random() < 0.7 else ALL) for _ in range(chance.randint(1, 5))
    )
    for _ in range(chance.choice((0, 0, 1, 2, 3))):
        at, token = chance.randrange(len(data) + 1), chance.choice(TOKENS)
        how = chance.randrange(4)
        if how == 0:
            data = data[:at] + token + data[at:]
        elif how == 1:
            data = data[:at] + data[at + chance.randint(1, 9) :]
        elif how == 2:
            data = data[:at] + token + data[at + len(token) :]
        else:
            other = chance.choice(ALL)
            data = data[:at] + other[chance.randrange(len(other)) :]
    return data or b"\r\n"


def pieces(chance, data):
    """Return the data cut at random, or byte by byte."""
    if chance.random() < 0.2:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(chance.choices(range(len(data) + 1), k=chance.randint(1, 8)))
    cut = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [piece for piece in cut if piece]


class Caller:
    """A caller of the engine, which answers some requests before their bodies have arrived."""

    def __init__(self, plan):
        self.engine = engine()
        self.plan = plan
        """For each request: whether it is answered early, and whether the connection stays open."""
        self.events = []
        self.open = False
        """A head was returned, and the end of its body was not."""
        self.requests = 0
        self.sink = Sink()

    def take(self, piece):
        """Give input to the engine and note its events. Raises nothing."""
        made = self.engine
        made.receive(piece)
        try:
            while (event := made.next_event()) is not None:
                self.note(event)
        except RequestError as error:
            self.events.append(("refused", error.status, error.reason))
            assert made.client is State.MUST_CLOSE
            made.refused()
            assert made.next_event() is None

    def note(self, event):
        """Note an event, and answer when it is planned."""
        made = self.engine
        early, keep = self.plan[self.requests % len(self.plan)]
        if isinstance(event, EndOfRequest):
            assert self.open
            self.open = False
            self.events.append(("end", b"".join(self.sink.parts), event.trailers))
            if not early:
                self.answer(keep)
            else:
                self.requests += 1
            return
        assert not self.open
        assert made.client in {State.BODY, State.DONE}
        assert made.server is State.HEAD
        self.events.append(("head", event.head.method, event.head.target, event.head.headers))
        if made.client is State.DONE:
            self.answer(keep)
            return
        self.open = True
        made.sink = self.sink = Sink()
        if early:
            made.answer_begun()
            made.answer_ended(keep)

    def answer(self, keep):
        """Make the answer to the request that is complete."""
        assert self.engine.next_event() is None  # whatever follows waits for the answer
        self.engine.answer_begun()
        self.engine.answer_ended(keep)
        self.requests += 1


def transcript(parts, plan):
    """Return what the engine makes of a conversation that ends."""
    caller = Caller(plan)
    for part in parts:
        caller.take(part)
    caller.take(b"")
    assert caller.engine.ended
    assert caller.engine.next_event() is None
    return caller.events


def test_conversations():
    """Only RequestError is raised; no request is returned twice or unfinished; the pieces do not matter."""
    chance, kinds = random.Random(15), set()
    for _ in range(CONVERSATIONS):
        data = conversation(chance)
        plan = [(chance.random() < 0.3, chance.random() < 0.9) for _ in range(3)]
        whole = transcript([data], plan)
        for _ in range(2):
            assert transcript(pieces(chance, data), plan) == whole, data
        heads = [event for event in whole if event[0] == "head"]
        assert len(heads) <= data.count(b"HTTP/1.")
        assert [event[0] for event in whole[:-1]].count("refused") == 0
        kinds.update(event[1] if event[0] == "refused" else event[0] for event in whole)
    assert len(kinds) >= 8
