"""The daemon's own life."""

import pytest

from preforkd.core.lifecycle import TABLE, Effect, Event, State, step


def test_a_pair_that_cannot_happen_is_said():
    """Every other pair has a next state."""
    for state in State:
        for event in Event:
            if (state, event) in TABLE:
                assert step(state, event)[0] in State
            else:
                with pytest.raises(ValueError, match="cannot happen"):
                    step(state, event)


def test_ready_follows_reloading_in_every_case():
    """However a reload ends short of a stop, READY is announced and those who wait are answered."""
    _, begun = step(State.SERVING, Event.RELOAD)
    assert Effect.ANNOUNCE_RELOADING in begun
    for event in (Event.PROMOTED, Event.ABANDONED, Event.SETTLED):
        state, effects = step(State.RELOADING, event)
        assert state is State.SERVING
        assert effects.index(Effect.ANSWER) < effects.index(Effect.ANNOUNCE_READY)
        assert effects[-1] is Effect.NEXT_RELOAD


def test_a_stop_is_possible_at_any_time_and_ends():
    """From each state before the end; a second one hurries; nobody is left waiting for a reload."""
    for state in (State.STARTING, State.SERVING, State.RELOADING):
        following, effects = step(state, Event.STOP)
        assert following is State.STOPPING
        assert {Effect.ANNOUNCE_STOPPING, Effect.REFUSE_RELOADS, Effect.DRAIN} <= set(effects)
    assert step(State.STOPPING, Event.STOP) == (State.STOPPING, (Effect.HURRY,))
    assert step(State.STOPPING, Event.EMPTY) == (State.ENDED, (Effect.EXIT,))
    assert not [state for state, _ in TABLE if state is State.ENDED]
