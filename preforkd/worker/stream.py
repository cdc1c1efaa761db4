"""The stream worker: one connection at a time, from accept to close."""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from preforkd.apps import stream
from preforkd.apps.stream import StreamHandler
from preforkd.worker.acceptor import Accepted, Acceptor
from preforkd.worker.interruption import retire_if_interrupted

if TYPE_CHECKING:
    from preforkd.worker.handshakes import Handshakes

_BURST = 0.005
"""Seconds for which connections that wait already are taken without looking for anything else."""
_PROBE = 16
"""While none had waited, it is tried again after so many connections: trying in vain costs a little."""


def serve(
    acceptor: Acceptor, application: Callable[..., Any], handshakes: "Handshakes | None" = None
) -> None:
    """Serve connections until the gate says that the worker is to leave.

    ``handshakes``: what precedes the handler's part of them.
    """
    if handshakes is None:
        _Loop(acceptor, application).run()
    else:
        _HandshakeLoop(acceptor, application, handshakes).run()


class _Loop:
    def __init__(self, acceptor: Acceptor, application: Callable[..., Any]) -> None:
        self._acceptor = acceptor
        self._handler: StreamHandler = stream.as_handler(application)
        self._since_probe = 0
        self._pid = os.getpid()

    def run(self) -> None:
        acceptor = self._acceptor
        acceptor.enable()
        while not acceptor.retiring:
            if acceptor.pending_refork is not None:
                acceptor.fork_zygote()
            try:
                for descriptor, _ in acceptor.poll(None):
                    self._take(descriptor)
            except BaseException as error:
                retire_if_interrupted(error, acceptor, self._pid)

    def _take(self, descriptor: int) -> None:
        acceptor = self._acceptor
        accepted = acceptor.accept(descriptor)
        if accepted is None:
            return
        until = time.monotonic() + _BURST
        self._begin(accepted)
        self._since_probe += 1
        if self._since_probe < _PROBE or acceptor.retiring or time.monotonic() > until:
            return
        if self._take_waiting(descriptor, until):
            # It has had its turn again, and goes behind the others.
            acceptor.rearm(descriptor)
        else:
            self._since_probe = 0

    def _take_waiting(self, descriptor: int, until: float) -> bool:
        """Take what waits already; False: nothing did."""
        acceptor, served = self._acceptor, False
        while (accepted := acceptor.accept(descriptor, rearm=False)) is not None:
            served = True
            self._begin(accepted)
            if acceptor.retiring or time.monotonic() > until:
                break
        return served

    def _begin(self, accepted: Accepted) -> None:
        self._serve(accepted)

    def _serve(self, accepted: Accepted) -> None:
        slot_writer = self._acceptor.slot_writer
        slot_writer.set_busy()
        try:
            stream.call(self._handler, accepted.sock, accepted.peer)
        except SystemExit:
            self._acceptor.retire()  # the handler asks for the end of this process: others go on
        finally:
            slot_writer.request_done()


class _HandshakeLoop(_Loop):
    """Serves connections as they are open; those that are when the worker is to leave are served as well."""

    def __init__(
        self, acceptor: Acceptor, application: Callable[..., Any], handshakes: "Handshakes"
    ) -> None:
        super().__init__(acceptor, application)
        self._handshakes = handshakes

    def run(self) -> None:
        acceptor, handshakes = self._acceptor, self._handshakes
        while not acceptor.retiring or handshakes:
            if acceptor.pending_refork is not None:
                self._fork_zygote()
            try:
                self._take_turn()
            except BaseException as error:
                retire_if_interrupted(error, acceptor, self._pid)

    def _take_turn(self) -> None:
        acceptor, handshakes = self._acceptor, self._handshakes
        if handshakes.full:
            acceptor.disable()
        else:
            acceptor.enable()
        for descriptor, _ in acceptor.poll(handshakes.timeout()):
            if descriptor != handshakes.fileno():
                self._take(descriptor)
        handshakes.advance()
        while handshakes.completed:
            self._serve(handshakes.completed.popleft())

    def _fork_zygote(self) -> None:
        try:
            self._acceptor.fork_zygote()
        except BaseException:
            self._handshakes.close_after_fork()  # in the zygote: the clients are the worker's
            raise

    def _begin(self, accepted: Accepted) -> None:
        if not self._handshakes.begin(accepted):
            self._serve(accepted)

    def _serve(self, accepted: Accepted) -> None:
        with self._handshakes.advancing_in_thread():
            super()._serve(accepted)
