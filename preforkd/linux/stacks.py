"""The stacks of all threads of a process, written by a signal handler in C: even while the GIL is held.

The signal is a real-time one, which applications do not use, and which nobody sends by accident.
faulthandler's documentation; signal(7)
"""

import faulthandler
import signal

SIGNAL = signal.SIGRTMIN + 9


def write_on_signal(descriptor: int) -> None:
    """Write the stacks to this descriptor, which stays open, whenever `SIGNAL` comes."""
    faulthandler.register(SIGNAL, file=descriptor, all_threads=True)


def write_no_more() -> None:
    """Ignore `SIGNAL` from now on."""
    signal.signal(SIGNAL, signal.SIG_IGN)
    faulthandler.unregister(SIGNAL)
    signal.signal(SIGNAL, signal.SIG_IGN)
