"""The lifecycle of the service, as a table of states and events.

`TABLE[state, event]` has the next state and the effects, in the order in which they are performed. The supervisor
has one method for each effect and decides nothing itself. A pair that is not in the table cannot happen: `step`
raises.
"""

from enum import StrEnum


class State(StrEnum):
    """The state of the service as a whole."""

    STARTING = "starting"
    SERVING = "serving"
    RELOADING = "reloading"
    STOPPING = "stopping"
    ENDED = "ended"


class Event(StrEnum):
    """An event of the service as a whole."""

    PROMOTED = "promoted"
    """A generation is ready and has become the current one."""
    ABANDONED = "abandoned"
    """The candidate was abandoned."""
    RELOAD = "reload"
    """A reload was requested."""
    SETTLED = "settled"
    """The reload needed no new generation: it was refused, or all changes were live settings."""
    STOP = "stop"
    """A stop was requested."""
    EMPTY = "empty"
    """No process is left."""


class Effect(StrEnum):
    """A step of the supervisor."""

    ANNOUNCE_READY = "announce_ready"
    ANNOUNCE_RELOADING = "announce_reloading"
    ANNOUNCE_STOPPING = "announce_stopping"
    PREPARE_RELOAD = "prepare_reload"
    """Read the configuration again and begin a generation, or end in SETTLED."""
    REMEMBER_RELOAD = "remember_reload"
    """Queue one more reload after this one; further requests are merged into it."""
    COMMIT = "commit"
    """Adopt the candidate's settings and sockets."""
    ROLL_BACK = "roll_back"
    """Discard the candidate's settings and close its new sockets."""
    ANSWER = "answer"
    """Send the result of the reload to the clients that requested it."""
    NEXT_RELOAD = "next_reload"
    """Begin the queued reload, if there is one."""
    REFUSE_RELOADS = "refuse_reloads"
    """Refuse the waiting requests for a reload: the service is stopping."""
    FAIL = "fail"
    """The start failed: log it and set the exit status."""
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
