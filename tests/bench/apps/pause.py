"""How an application of the benchmark behaves beside its work.

``BENCH_PAUSE`` (seconds): each request takes at least so long, so that requests that run at the same time
are at as many workers, and the load reaches all of them, whatever a server's way to wake one.
"""

import gc
import os
import time

PAUSE = float(os.environ.get("BENCH_PAUSE", "0"))
_COLLECTING = 0.1


def pause():
    if PAUSE:
        time.sleep(PAUSE)


def collect():
    """Collect garbage in this worker, and occupy it long enough for the next one to be asked."""
    gc.collect()
    time.sleep(_COLLECTING)
