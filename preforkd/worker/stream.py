"""The stream worker: one connection at a time, from accept to close."""

import time
from collections.abc import Callable
from typing import Any

from preforkd.apps import stream
from preforkd.apps.stream import StreamHandler
from preforkd.worker.gate import Accepted, Gate

_BURST = 0.005
"""Seconds for which connections that wait already are taken without looking for anything else."""
_PROBE = 16
"""While none had waited, it is tried again after so many connections: trying in vain costs a little."""


def serve(gate: Gate, application: Callable[..., Any]) -> None:
    """Serve connections until the gate says that the worker is to leave."""
    handler = stream.as_handler(application)
    untried = 0
    gate.open()
    while not gate.retiring:
        if gate.refork is not None:
            gate.fork_zygote()
        for descriptor, _ in gate.poll(None):
            accepted = gate.accept(descriptor)
            if accepted is None:
                continue
            until = time.monotonic() + _BURST
            _serve_one(gate, handler, accepted)
            untried += 1
            if untried < _PROBE or gate.retiring or time.monotonic() > until:
                continue
            if _serve_waiting(gate, handler, descriptor, until):
                # It has had its turn again, and goes behind the others.
                gate.rearm(descriptor)
            else:
                untried = 0


def _serve_one(gate: Gate, handler: StreamHandler, accepted: Accepted) -> None:
    board = gate.board
    board.busy()
    try:
        stream.call(handler, accepted.sock, accepted.peer)
    except SystemExit:
        gate.leave()  # the handler asks for the end of this process: others go on
    board.idle()


def _serve_waiting(gate: Gate, handler: StreamHandler, descriptor: int, until: float) -> bool:
    """Serve what waits already; False: nothing did."""
    served = False
    while (accepted := gate.accept(descriptor, again=True)) is not None:
        served = True
        _serve_one(gate, handler, accepted)
        if gate.retiring or time.monotonic() > until:
            break
    return served
