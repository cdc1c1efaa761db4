"""The two states of an HTTP/1.1 connection: what the client has sent, and what the server has sent. RFC 9112.

Both sides go through a cycle for each request.  A table for each side names every legal step; any other one
is a defect of the caller and raises AssertionError.  The states depend on each other in two places only
(`preforkd.http.engine`): the next cycle begins when both sides are DONE, and a last answer ends both.
"""

from enum import IntEnum


class State(IntEnum):
    """The state of one side of a connection."""

    IDLE = 0
    """Between two requests; no byte of the next one has arrived, and no answer is owed."""
    HEAD = 1
    """Client: a part of a head has arrived.  Server: a request has arrived, and no byte of its answer."""
    BODY = 2
    """The head is complete and the body is not."""
    DONE = 3
    """The message is complete; the side waits for the other one."""
    MUST_CLOSE = 4
    """Client: nothing more of its input is evaluated.  Server: its last answer is complete."""
    CLOSED = 5
    """Nothing more comes from this side."""
    UPGRADED = 6
    """The connection belongs to another protocol."""


class Step(IntEnum):
    """What changes a state."""

    BEGUN = 0
    """Client: the first bytes of a head.  Server: the head of an answer."""
    REQUEST = 1
    """A complete head whose body follows."""
    WHOLE_REQUEST = 2
    """A complete request."""
    ENDED = 3
    """The end of a message after which the connection continues."""
    LAST = 4
    """The end of the last answer, after which no further request is evaluated."""
    REFUSED = 5
    """An error answer of the server's own, which is the last one."""
    NEXT = 6
    """Both sides are done."""
    END_OF_INPUT = 7
    """The client has shut down its sending side, and nothing complete is left of its input."""
    UPGRADE = 8
    ABORTED = 9
    """The connection is lost."""


_ENDS = {Step.LAST: State.MUST_CLOSE, Step.REFUSED: State.MUST_CLOSE, Step.ABORTED: State.CLOSED}

CLIENT: dict[State, dict[Step, State]] = {
    State.IDLE: {
        Step.BEGUN: State.HEAD,
        Step.REQUEST: State.BODY,
        Step.WHOLE_REQUEST: State.DONE,
        Step.END_OF_INPUT: State.CLOSED,
        **_ENDS,
    },
    State.HEAD: {
        Step.BEGUN: State.HEAD,
        Step.REQUEST: State.BODY,
        Step.WHOLE_REQUEST: State.DONE,
        Step.END_OF_INPUT: State.CLOSED,
        **_ENDS,
    },
    State.BODY: {Step.ENDED: State.DONE, Step.END_OF_INPUT: State.CLOSED, **_ENDS},
    State.DONE: {Step.NEXT: State.IDLE, Step.UPGRADE: State.UPGRADED, **_ENDS},
    State.MUST_CLOSE: {**_ENDS},
    State.CLOSED: dict.fromkeys(_ENDS, State.CLOSED),
    State.UPGRADED: {Step.ABORTED: State.CLOSED},
}
"""The client's state after each legal step."""

SERVER: dict[State, dict[Step, State]] = {
    State.IDLE: {
        Step.REQUEST: State.HEAD,
        Step.WHOLE_REQUEST: State.HEAD,
        Step.REFUSED: State.MUST_CLOSE,
        Step.ABORTED: State.CLOSED,
    },
    State.HEAD: {
        Step.BEGUN: State.BODY,
        Step.ENDED: State.DONE,
        Step.UPGRADE: State.UPGRADED,
        **_ENDS,
    },
    State.BODY: {
        Step.ENDED: State.DONE,
        Step.LAST: State.MUST_CLOSE,
        Step.ABORTED: State.CLOSED,
    },
    State.DONE: {Step.NEXT: State.IDLE, Step.REFUSED: State.MUST_CLOSE, Step.ABORTED: State.CLOSED},
    State.MUST_CLOSE: {Step.ABORTED: State.CLOSED},
    State.CLOSED: {Step.ABORTED: State.CLOSED},
    State.UPGRADED: {Step.ABORTED: State.CLOSED},
}
"""The server's state after each legal step."""


def after(table: dict[State, dict[Step, State]], state: State, step: Step) -> State:
    """Return the state after a step. Raises AssertionError for one that is not legal."""
    following = table[state].get(step)
    if following is None:
        side = "client" if table is CLIENT else "server"
        raise AssertionError(f"{step.name} is not legal when the {side} is {state.name}")
    return following
