"""Requests for a reload, and their answers; requests that arrive during a reload are merged into one."""

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
        """Queue a reload; all requests until it begins are one."""
        request = self._next or _Request()
        request.fresh = request.fresh or fresh
        if waiter is not None:
            request.waiters.append(waiter)
        else:
            request.by_signal = True
        self._next = request

    @property
    def pending(self) -> bool:
        """Return whether a reload is queued."""
        return self._next is not None

    @property
    def by_signal(self) -> bool:
        """Return whether the queued reload was requested by a signal (too), which gets no answer."""
        return self._next is not None and self._next.by_signal

    def begin(self) -> bool:
        """Begin the queued reload; return whether it is to start new workers in any case."""
        self._running, self._next = self._next or _Request(), None
        return self._running.fresh

    def answer(self, answer: ReloadAnswer) -> None:
        """Send the answer to all callbacks of the running reload."""
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
        """Answer all callbacks, queued ones too, that the service is stopping."""
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
