"""The stream worker: one connection at a time, from accept to close."""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from preforkd.apps import stream
from preforkd.apps.stream import StreamHandler
from preforkd.worker.acceptor import Accepted, Acceptor
from preforkd.worker.interruption import leave_if_interrupted

if TYPE_CHECKING:
    from preforkd.worker.openings import Openings

_BURST = 0.005
"""Seconds for which connections that wait already are taken without looking for anything else."""
_PROBE = 16
"""While none had waited, it is tried again after so many connections: trying in vain costs a little."""


def serve(
    gate: Acceptor, application: Callable[..., Any], openings: "Openings | None" = None
) -> None:
    """Serve connections until the gate says that the worker is to leave.

    ``openings``: what precedes the handler's part of them.
    """
    if openings is None:
        _Loop(gate, application).run()
    else:
        _OpeningLoop(gate, application, openings).run()


class _Loop:
    def __init__(self, gate: Acceptor, application: Callable[..., Any]) -> None:
        self._gate = gate
        self._handler: StreamHandler = stream.as_handler(application)
        self._untried = 0
        self._pid = os.getpid()

    def run(self) -> None:
        gate = self._gate
        gate.open()
        while not gate.retiring:
            if gate.refork is not None:
                gate.fork_zygote()
            try:
                for descriptor, _ in gate.poll(None):
                    self._take(descriptor)
            except BaseException as error:
                leave_if_interrupted(error, gate, self._pid)

    def _take(self, descriptor: int) -> None:
        gate = self._gate
        accepted = gate.accept(descriptor)
        if accepted is None:
            return
        until = time.monotonic() + _BURST
        self._begin(accepted)
        self._untried += 1
        if self._untried < _PROBE or gate.retiring or time.monotonic() > until:
            return
        if self._take_waiting(descriptor, until):
            # It has had its turn again, and goes behind the others.
            gate.rearm(descriptor)
        else:
            self._untried = 0

    def _take_waiting(self, descriptor: int, until: float) -> bool:
        """Take what waits already; False: nothing did."""
        gate, served = self._gate, False
        while (accepted := gate.accept(descriptor, again=True)) is not None:
            served = True
            self._begin(accepted)
            if gate.retiring or time.monotonic() > until:
                break
        return served

    def _begin(self, accepted: Accepted) -> None:
        self._serve(accepted)

    def _serve(self, accepted: Accepted) -> None:
        slot_writer = self._gate.slot_writer
        slot_writer.set_busy()
        try:
            stream.call(self._handler, accepted.sock, accepted.peer)
        except SystemExit:
            self._gate.leave()  # the handler asks for the end of this process: others go on
        finally:
            slot_writer.request_done()


class _OpeningLoop(_Loop):
    """Serves connections as they are open; those that are when the worker is to leave are served as well."""

    def __init__(
        self, gate: Acceptor, application: Callable[..., Any], openings: "Openings"
    ) -> None:
        super().__init__(gate, application)
        self._openings = openings

    def run(self) -> None:
        gate, openings = self._gate, self._openings
        while not gate.retiring or openings:
            if gate.refork is not None:
                self._fork_zygote()
            try:
                self._take_turn()
            except BaseException as error:
                leave_if_interrupted(error, gate, self._pid)

    def _take_turn(self) -> None:
        gate, openings = self._gate, self._openings
        if openings.full:
            gate.shut()
        else:
            gate.open()
        for descriptor, _ in gate.poll(openings.timeout()):
            if descriptor != openings.fileno():
                self._take(descriptor)
        openings.attend()
        while openings.opened:
            self._serve(openings.opened.popleft())

    def _fork_zygote(self) -> None:
        try:
            self._gate.fork_zygote()
        except BaseException:
            self._openings.abandon()  # in the zygote: the clients are the worker's
            raise

    def _begin(self, accepted: Accepted) -> None:
        if not self._openings.begin(accepted):
            self._serve(accepted)

    def _serve(self, accepted: Accepted) -> None:
        with self._openings.going_on():
            super()._serve(accepted)
