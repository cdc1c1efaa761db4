"""How the rows of the attack table are delivered, and which answers are due."""

BEFORE = b"GET /before HTTP/1.1\r\nHost: h\r\n\r\n"
BEHIND = b"GET /behind HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
"""Answered if the connection continues behind a row."""


def _at_once(row, _chance):
    return [row.data + BEHIND]


def _behind_another(row, _chance):
    return [BEFORE + row.data + BEHIND]


def _byte_by_byte(row, _chance):
    data = row.data + BEHIND
    return [data[at : at + 1] for at in range(len(data))]


def _in_pieces(row, chance):
    data = row.data + BEHIND
    cuts = sorted(chance.sample(range(1, len(data)), k=chance.randint(1, 6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


MODES = {
    "at once": _at_once,
    "behind another": _behind_another,
    "byte by byte": _byte_by_byte,
    "in pieces": _in_pieces,
}
"""Functions of a row and a source of chance that return what is sent, piece by piece."""


def expected_statuses(row, mode, kind="wsgi"):
    """Return the statuses of all answers."""
    text = row.asgi if kind == "asgi" and row.asgi else row.expected
    answers = text.rstrip(".").split()
    if answers[-1] == "200" and not text.endswith("."):
        answers.append("200")
    return ["200", *answers] if mode == "behind another" else answers
