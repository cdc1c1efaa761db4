"""The daemon's own life, as a table of states and events.

`TABLE[state, event]` names the next state and the effects, in the order in which they are to be carried out; the
supervisor has one method for each effect and decides nothing itself.  A pair that is not in the table is one that
cannot happen, and `step` says so.
"""

from enum import StrEnum


class State(StrEnum):
    """What the service as a whole is doing."""

    STARTING = "starting"
    SERVING = "serving"
    RELOADING = "reloading"
    STOPPING = "stopping"
    ENDED = "ended"


class Event(StrEnum):
    """What can happen to the service as a whole."""

    PROMOTED = "promoted"
    """A generation is ready and has taken over."""
    ABANDONED = "abandoned"
    """The candidate was given up."""
    RELOAD = "reload"
    """A reload is asked for."""
    SETTLED = "settled"
    """The reload needed no new generation: it was refused, or what it changed was changed live."""
    STOP = "stop"
    """A stop is asked for."""
    EMPTY = "empty"
    """No process is left."""


class Effect(StrEnum):
    """What the supervisor does at a step."""

    ANNOUNCE_READY = "announce_ready"
    ANNOUNCE_RELOADING = "announce_reloading"
    ANNOUNCE_STOPPING = "announce_stopping"
    PREPARE_RELOAD = "prepare_reload"
    """Read the configuration again and begin a generation, or end in SETTLED."""
    REMEMBER_RELOAD = "remember_reload"
    """Another reload is to follow this one; however many ask, it is one."""
    COMMIT = "commit"
    """What the candidate was started with is now what is."""
    ROLL_BACK = "roll_back"
    """What the candidate was started with is forgotten, its new sockets are closed."""
    ANSWER = "answer"
    """Tell those who asked for the reload how it ended."""
    NEXT_RELOAD = "next_reload"
    """Begin the reload that was remembered, if any."""
    REFUSE_RELOADS = "refuse_reloads"
    """Tell those who ask for a reload, and those who wait for one, that the service is stopping."""
    FAIL = "fail"
    """The start failed: remember the exit status."""
    DRAIN = "drain"
    HURRY = "hurry"
    EXIT = "exit"


_S, _E, _F = State, Event, Effect
_STOP = (State.STOPPING, (Effect.ANNOUNCE_STOPPING, Effect.REFUSE_RELOADS, Effect.DRAIN))
_AFTER = (Effect.ANSWER, Effect.ANNOUNCE_READY, Effect.NEXT_RELOAD)

TABLE: dict[tuple[State, Event], tuple[State, tuple[Effect, ...]]] = {
    (_S.STARTING, _E.PROMOTED): (_S.SERVING, (_F.COMMIT, _F.ANNOUNCE_READY, _F.NEXT_RELOAD)),
    (_S.STARTING, _E.ABANDONED): (
        _S.STOPPING,
        (_F.FAIL, _F.ANNOUNCE_STOPPING, _F.REFUSE_RELOADS, _F.HURRY),
    ),
    (_S.STARTING, _E.RELOAD): (_S.STARTING, (_F.REMEMBER_RELOAD,)),
    (_S.STARTING, _E.STOP): _STOP,
    (_S.SERVING, _E.RELOAD): (_S.RELOADING, (_F.ANNOUNCE_RELOADING, _F.PREPARE_RELOAD)),
    (_S.SERVING, _E.STOP): _STOP,
    (_S.RELOADING, _E.RELOAD): (_S.RELOADING, (_F.REMEMBER_RELOAD,)),
    (_S.RELOADING, _E.SETTLED): (_S.SERVING, _AFTER),
    (_S.RELOADING, _E.PROMOTED): (_S.SERVING, (_F.COMMIT, *_AFTER)),
    (_S.RELOADING, _E.ABANDONED): (_S.SERVING, (_F.ROLL_BACK, *_AFTER)),
    (_S.RELOADING, _E.STOP): (
        _S.STOPPING,
        (_F.ANNOUNCE_STOPPING, _F.ROLL_BACK, _F.REFUSE_RELOADS, _F.DRAIN),
    ),
    (_S.STOPPING, _E.STOP): (_S.STOPPING, (_F.HURRY,)),
    (_S.STOPPING, _E.RELOAD): (_S.STOPPING, (_F.REFUSE_RELOADS,)),
    (_S.STOPPING, _E.EMPTY): (_S.ENDED, (_F.EXIT,)),
}


def step(state: State, event: Event) -> tuple[State, tuple[Effect, ...]]:
    """Return the next state and the effects of reaching it.

    Raises ValueError for a pair that cannot happen.
    """
    try:
        return TABLE[state, event]
    except KeyError:
        raise ValueError(f"{event.value} cannot happen while {state.value}") from None
