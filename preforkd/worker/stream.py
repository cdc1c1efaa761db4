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
"""Seconds for which waiting connections are accepted without polling in between."""
_PROBE = 16
"""Connections between two attempts to accept without polling; a failed attempt costs a system call."""


def serve(
    acceptor: Acceptor, application: Callable[..., Any], handshakes: "Handshakes | None" = None
) -> None:
    """Serve connections until the worker retires.

    ``handshakes``: what precedes the handler's bytes, if any listener has TLS or the PROXY protocol.
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
            # It has served more than its wake-up, and goes to the end of the wait queue.
            acceptor.rearm(descriptor)
        else:
            self._since_probe = 0

    def _take_waiting(self, descriptor: int, until: float) -> bool:
        """Serve connections that wait already; return False if there were none."""
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
            self._acceptor.retire()  # the handler requests the exit of this process; other workers continue
        finally:
            slot_writer.request_done()


class _HandshakeLoop(_Loop):
    """Serves connections after their handshakes; those that have begun are served before the worker exits."""

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
            self._handshakes.close_after_fork()  # in the zygote: the connections belong to the worker
            raise

    def _begin(self, accepted: Accepted) -> None:
        if not self._handshakes.begin(accepted):
            self._serve(accepted)

    def _serve(self, accepted: Accepted) -> None:
        with self._handshakes.advancing_in_thread():
            super()._serve(accepted)
