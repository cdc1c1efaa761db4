"""The stream worker: one connection at a time, from accept to close."""

from collections.abc import Callable
from typing import Any

from preforkd.apps import stream
from preforkd.worker.gate import Gate


def serve(gate: Gate, application: Callable[..., Any]) -> None:
    """Serve connections until the gate says that the worker is to leave."""
    handler = stream.as_handler(application)
    board = gate.board
    gate.open()
    while not gate.retiring:
        if gate.refork is not None:
            gate.fork_zygote()
        for descriptor, _ in gate.poll(None):
            accepted = gate.accept(descriptor)
            if accepted is None:
                continue
            board.busy()
            try:
                stream.call(handler, accepted.sock, accepted.peer)
            except SystemExit:
                gate.leave()  # the handler asks for the end of this process: others go on
            board.idle()
