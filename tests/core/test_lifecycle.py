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


@pytest.mark.parametrize("kind", [State, Event, Effect])
def test_a_value_is_its_name(kind):
    """In the process's title, over the control socket and in the log: what is read there is found in the code."""
    assert [member.value for member in kind] == [member.name.lower() for member in kind]


def test_a_remembered_reload_is_run_or_refused():
    """Whatever happens next: each way out of a state that remembers a reload ends its waiting."""
    remembering = [
        state for state, event in TABLE if Effect.REMEMBER_RELOAD in TABLE[state, event][1]
    ]
    assert remembering == [State.STARTING, State.RELOADING]
    for state in remembering:
        for event in set(Event) - {Event.RELOAD}:
            if (state, event) not in TABLE:
                continue
            following, effects = step(state, event)
            ends = Effect.NEXT_RELOAD if following is State.SERVING else Effect.REFUSE_RELOADS
            assert ends in effects


def test_what_a_candidate_was_started_with_is_committed_or_rolled_back():
    """Before the answer to the reload, and before the next one begins; nothing else is settled so."""
    promoted = step(State.RELOADING, Event.PROMOTED)[1]
    abandoned = step(State.RELOADING, Event.ABANDONED)[1]
    assert promoted[:2] == (Effect.COMMIT, Effect.ANSWER)
    assert abandoned[:2] == (Effect.ROLL_BACK, Effect.ANSWER)
    assert step(State.RELOADING, Event.SETTLED)[1][0] is Effect.ANSWER
    assert step(State.STARTING, Event.PROMOTED)[1][0] is Effect.COMMIT
    stopped = step(State.RELOADING, Event.STOP)[1]
    assert stopped.index(Effect.ROLL_BACK) < stopped.index(Effect.REFUSE_RELOADS)


def test_a_start_that_fails_ends_the_service_quickly():
    """With the exit status of its failure; no worker serves that would have to drain."""
    state, effects = step(State.STARTING, Event.ABANDONED)
    assert state is State.STOPPING
    assert effects[0] is Effect.FAIL
    assert effects[-1] is Effect.HURRY
    assert Effect.DRAIN not in effects


def test_ready_follows_reloading_in_every_case():
    """However a reload ends short of a stop, READY is announced and waiting clients get their answer."""
    _, begun = step(State.SERVING, Event.RELOAD)
    assert Effect.ANNOUNCE_RELOADING in begun
    for event in (Event.PROMOTED, Event.ABANDONED, Event.SETTLED):
        state, effects = step(State.RELOADING, event)
        assert state is State.SERVING
        assert effects.index(Effect.ANSWER) < effects.index(Effect.ANNOUNCE_READY)
        assert effects[-1] is Effect.NEXT_RELOAD


def test_a_stop_is_possible_at_any_time_and_ends():
    """From each state before the end; a second one hurries; no client is left waiting for a reload."""
    for state in (State.STARTING, State.SERVING, State.RELOADING):
        following, effects = step(state, Event.STOP)
        assert following is State.STOPPING
        assert {Effect.ANNOUNCE_STOPPING, Effect.REFUSE_RELOADS, Effect.DRAIN} <= set(effects)
    assert step(State.STOPPING, Event.STOP) == (State.STOPPING, (Effect.HURRY,))
    assert step(State.STOPPING, Event.EMPTY) == (State.ENDED, (Effect.EXIT,))
    assert not [state for state, _ in TABLE if state is State.ENDED]
