"""The signals that the master acts on: each declared once, with its meaning for the documents.

The loop calls the methods of `SignalReceiver` in the turn after a signal arrived, never from within a
signal handler of the interpreter. SIGCHLD is not listed: no administrator sends it. signal(7)
"""

import logging
import signal
from collections.abc import Callable

import msgspec

from preforkd.loop import Loop
from preforkd.supervisor.master import Master

logger = logging.getLogger("preforkd.master")

_SAME_REQUEST = 0.1
"""Seconds within which the same signal, received twice, counts once."""


class SignalReceiver:
    """Does what the signals request of ``master``.

    A terminal, timeout(1) and their like send a stop twice, to the process and to its group. So the same
    signal within a moment counts once; any other second one makes the stop quick.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self._last: tuple[signal.Signals, float] | None = None

    def stop(self, number: signal.Signals) -> None:
        """Stop; on a second signal, quickly."""
        now = self._master.loop.time()
        last, self._last = self._last, (number, now)
        if last is not None and last[0] is number and now - last[1] < _SAME_REQUEST:
            return
        logger.info("%s: stopping", number.name)
        self._master.stop()

    def stop_quickly(self, number: signal.Signals) -> None:
        """Stop without waiting for requests."""
        logger.info("%s: stopping quickly", number.name)
        self._master.stop(quick=True)

    def stop_for_restart(self, number: signal.Signals) -> None:
        """Stop, and leave the sockets that preforkd bound with the service manager."""
        logger.info("%s: stopping for a restart", number.name)
        self._master.restarting = True
        self._master.stop()

    def reload(self, _number: signal.Signals) -> None:
        """Reload; the result is in the log and in STATUS."""
        self._master.on_sighup()

    def log_status(self, _number: signal.Signals) -> None:
        """Log the status of the service and of each worker."""
        self._master.log_status()

    def grow(self, _number: signal.Signals) -> None:
        """Add a worker."""
        self._master.scale_by(1)

    def shrink(self, _number: signal.Signals) -> None:
        """Remove a worker."""
        self._master.scale_by(-1)


class MasterSignal(msgspec.Struct, frozen=True):
    """Signals with one meaning, which is a sentence for guides and manuals, and how it is received."""

    numbers: tuple[signal.Signals, ...]
    meaning: str
    receive: Callable[[SignalReceiver, signal.Signals], None]


SIGNALS = (
    MasterSignal(
        (signal.SIGTERM, signal.SIGINT),
        "Stop: accept no more connections, finish running requests within timeouts.drain, then kill. "
        "A second signal stops quickly.",
        SignalReceiver.stop,
    ),
    MasterSignal(
        (signal.SIGQUIT,),
        "Stop quickly: running requests are not finished.",
        SignalReceiver.stop_quickly,
    ),
    MasterSignal((signal.SIGHUP,), "Reload, as preforkctl reload does.", SignalReceiver.reload),
    MasterSignal(
        (signal.SIGUSR1,),
        "Log the status of the service and of each worker.",
        SignalReceiver.log_status,
    ),
    MasterSignal(
        (signal.SIGUSR2,),
        "Stop for a restart: like SIGTERM, but sockets that preforkd bound stay open with systemd "
        "(RestartKillSignal=).",
        SignalReceiver.stop_for_restart,
    ),
    MasterSignal(
        (signal.SIGTTIN,), "Add a worker, as preforkctl scale +1 does.", SignalReceiver.grow
    ),
    MasterSignal(
        (signal.SIGTTOU,), "Remove a worker, as preforkctl scale -1 does.", SignalReceiver.shrink
    ),
)
"""Every signal that an administrator may send to the master."""


def receive(loop: Loop, master: Master) -> None:
    """Have the loop call the master for each of `SIGNALS`, and for children that ended."""
    receiver = SignalReceiver(master)
    for each in SIGNALS:
        for number in each.numbers:
            loop.add_signal_handler(number, each.receive, receiver, number)
    loop.add_signal_handler(signal.SIGCHLD, master.pool.child_changed)
