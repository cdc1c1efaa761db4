"""Who waits for a reload, and what they are told: requests that arrive during one are merged."""

import time
from collections.abc import Callable

import msgspec

from preforkd.control.records import ReloadAnswer, ReloadStatus
from preforkd.errors import Failure

STOPPING = ReloadAnswer(
    ok=False,
    generation=None,
    message="the service is stopping",
    blame="stopping",
    detail="",
    hint="",
    live=[],
    restart=[],
)


ReloadCallback = Callable[[ReloadAnswer], None]
"""Called once, when the reload has ended."""


class _Request(msgspec.Struct):
    fresh: bool = False
    by_signal: bool = False
    waiters: list[ReloadCallback] = []


class Reloads:
    """The reload that runs, the one that is to follow it, and how the last one ended."""

    def __init__(self) -> None:
        self.last: ReloadStatus | None = None
        self._next: _Request | None = None
        self._running: _Request | None = None

    def request(self, waiter: ReloadCallback | None, *, fresh: bool) -> None:
        """Remember that a reload is asked for; however many ask, it is one."""
        request = self._next or _Request()
        request.fresh = request.fresh or fresh
        if waiter is not None:
            request.waiters.append(waiter)
        else:
            request.by_signal = True
        self._next = request

    @property
    def pending(self) -> bool:
        """Tell whether a reload is to follow."""
        return self._next is not None

    @property
    def by_signal(self) -> bool:
        """Tell whether the reload that is to follow was asked for by a signal, too: nobody is answered."""
        return self._next is not None and self._next.by_signal

    def begin(self) -> bool:
        """Take up the reload that was asked for; tell whether new workers are wanted in any case."""
        self._running, self._next = self._next or _Request(), None
        return self._running.fresh

    def answer(self, answer: ReloadAnswer) -> None:
        """Tell those who wait for the running reload how it ended."""
        self.last = ReloadStatus(
            generation=answer.generation,
            ok=answer.ok,
            message=answer.message,
            blame=answer.blame,
            detail=answer.detail,
            hint=answer.hint,
            at_unix=time.time(),
        )
        running, self._running = self._running, None
        _resolve(running, answer)

    def refuse(self) -> None:
        """Tell everybody who waits that the service is stopping."""
        running, self._running = self._running, None
        following, self._next = self._next, None
        _resolve(running, STOPPING)
        _resolve(following, STOPPING)


def _resolve(request: _Request | None, answer: ReloadAnswer) -> None:
    for callback in request.waiters if request else ():
        callback(answer)


def success(
    generation: int | None, message: str, live: tuple[str, ...] = (), restart: tuple[str, ...] = ()
) -> ReloadAnswer:
    """Return the answer to a reload that did what it was asked."""
    return ReloadAnswer(
        ok=True,
        generation=generation,
        message=message,
        blame=None,
        detail="",
        hint="",
        live=list(live),
        restart=list(restart),
    )


def refusal(failure: Failure) -> ReloadAnswer:
    """Return the answer to a reload that failed."""
    return ReloadAnswer(
        ok=False,
        generation=None,
        message=failure.reason,
        blame=failure.blame.value,
        detail=failure.detail,
        hint=failure.hint,
        live=[],
        restart=[],
    )
