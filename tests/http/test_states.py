"""The states of both sides, and the steps between them."""

import pytest

from preforkd.http.states import CLIENT, SERVER, State, Step, after


@pytest.mark.parametrize("table", [CLIENT, SERVER], ids=["client", "server"])
def test_every_state_has_its_steps_and_is_reached(table):
    """There is no state without a row, and none but the first that no step leads to."""
    assert set(table) == set(State)
    reached = {state for steps in table.values() for state in steps.values()}
    assert reached | {State.IDLE} == set(State)


@pytest.mark.parametrize("table", [CLIENT, SERVER], ids=["client", "server"])
def test_the_end_is_final(table):
    """A closed side stays closed, and only a loss ends what belongs to another protocol."""
    assert set(table[State.CLOSED].values()) == {State.CLOSED}
    assert table[State.UPGRADED] == {Step.ABORTED: State.CLOSED}
    assert set(table[State.MUST_CLOSE].values()) <= {State.MUST_CLOSE, State.CLOSED}


def test_a_step_that_is_not_legal_is_named():
    """With the side and its state: a defect of the caller."""
    assert after(SERVER, State.HEAD, Step.BEGUN) is State.BODY
    with pytest.raises(AssertionError, match="NEXT is not legal when the server is BODY"):
        after(SERVER, State.BODY, Step.NEXT)
    with pytest.raises(AssertionError, match="UPGRADE is not legal when the client is IDLE"):
        after(CLIENT, State.IDLE, Step.UPGRADE)
