"""Rules for the size of an elastic pool: it grows at once on evidence of waiting, and shrinks slowly.

It grows when connections wait in the backlog and no worker is idle, in two samples in a row: by 2, 4, 8 …
workers while that lasts, and by no more workers than connections wait. With ``spare`` it also grows when fewer
than ``spare`` workers are free of long requests.

It shrinks when it was larger than needed for half a minute: by a quarter of the excess, every ten seconds, and
only by idle workers. So no worker is retired seconds after its fork, and steady load leaves the size unchanged.
"""

from collections.abc import Iterator

from preforkd.core import demand as dm, events as ev
from preforkd.core.model import BOOTING
from preforkd.core.pool_view import PoolView

SHRINK_EVERY = 10.0


def grow(view: PoolView) -> Iterator[ev.Action]:
    """Enlarge the pool when the last sample gives a reason."""
    board, limits = view.board, view.limits
    demand, current, size = board.demand, board.current, view.size
    if current is None or size >= limits.maximum or demand.sampled_at <= demand.grown_at:
        return
    if current.failure_streak.retry_at > view.now:
        return  # more workers would fail to start as well
    need = 0
    if demand.waiting_since is not None and demand.sampled_at > demand.waiting_since:
        coming = board.count(current.generation, BOOTING)
        need = min(demand.step, demand.sample.waiting - coming)
    spare = (
        demand.sample.long_busy + limits.spare if limits.spare and demand.sample.long_busy else 0
    )
    wanted = min(limits.maximum, max(size + need, spare))
    if wanted <= size:
        return
    if need > 0:
        reason = f"no worker is idle and {demand.sample.waiting} connections wait"
    else:
        reason = f"{demand.sample.long_busy} workers have long requests and workers.spare is {limits.spare}"
    yield ev.Resize(wanted, size, reason)


def shrink_to_busy(view: PoolView) -> Iterator[ev.Action]:
    """Reduce the pool to its busy workers under memory pressure."""
    demand = view.board.demand
    if demand.memory_short and view.limits.elastic and view.board.current is not None:
        least = max(view.limits.floor, len(demand.sample.busy))
        yield ev.Resize(min(view.size, least), view.size, "memory is short")


def shrink(view: PoolView) -> Iterator[ev.Action]:
    """Reduce the pool when it was larger than needed for `demand.WINDOW`."""
    due = shrink_due(view)
    if due is None or due > view.now:
        return
    size = view.size
    least = max(view.limits.floor, _peak(view) + view.limits.spare)
    if size > least:
        smaller = size - max(1, (size - least) // 4)
        yield ev.Resize(smaller, size, f"{least} workers were enough for {dm.WINDOW:.0f} s")


def _peak(view: PoolView) -> int:
    peaks = view.board.demand.peaks
    return max((peak[1] for peak in peaks if dm.expiry(peak) > view.now), default=0)


def shrink_due(view: PoolView) -> float | None:
    """Return the earliest time at which the pool may shrink; None: it cannot."""
    board, limits, size = view.board, view.limits, view.size
    if board.current is None or board.candidate is not None or size <= limits.floor:
        return None
    demand = board.demand
    times = [demand.grown_at + dm.WINDOW, demand.shrunk_at + SHRINK_EVERY]
    times += [dm.expiry(peak) for peak in demand.peaks if peak[1] + limits.spare >= size]
    return max(times)
