"""Rules for the size of an elastic pool: it grows on evidence that somebody waits, and shrinks slowly.

It grows when connections wait in the kernel's queue and no worker is idle, at two looks in a row: by two, four,
eight … as long as that lasts, and never by more than wait. It grows as well, where ``spare`` asks for it,
when fewer than so many workers are left beside those that are busy with one request for long.

It shrinks when it has not been needed for half a minute: by a quarter of what is too much, every ten seconds,
and only by workers that are idle. So what was forked is not retired within seconds: load that is steady moves
nothing.
"""

from collections.abc import Iterator

from preforkd.core import demand as dm, events as ev
from preforkd.core.model import BOOTING
from preforkd.core.pool_view import PoolView

SHRINK_EVERY = 10.0


def grow(view: PoolView) -> Iterator[ev.Action]:
    """Wish for more workers when the last look gave a reason for it."""
    board, limits = view.board, view.limits
    demand, current, size = board.demand, board.current, view.size
    if current is None or size >= limits.maximum or demand.sampled_at <= demand.grown_at:
        return
    if current.failure_streak.retry_at > view.now:
        return  # more of what does not start
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
        reason = f"no worker is idle, and {demand.sample.waiting} connections wait"
    else:
        reason = f"{demand.sample.long_busy} busy for long, and {limits.spare} are to be spare"
    yield ev.Resize(wanted, size, reason)


def shrink_to_busy(view: PoolView) -> Iterator[ev.Action]:
    """Wish for no more workers than are busy when memory is short."""
    demand = view.board.demand
    if demand.memory_short and view.limits.elastic and view.board.current is not None:
        least = max(view.limits.floor, len(demand.sample.busy))
        yield ev.Resize(min(view.size, least), view.size, "memory is short")


def shrink(view: PoolView) -> Iterator[ev.Action]:
    """Wish for fewer workers when those that there are have not been needed for long."""
    due = shrink_due(view)
    if due is None or due > view.now:
        return
    size = view.size
    least = max(view.limits.floor, _peak(view) + view.limits.spare)
    if size > least:
        smaller = size - max(1, (size - least) // 4)
        yield ev.Resize(smaller, size, f"{least} have been enough for {dm.WINDOW:.0f} s")


def _peak(view: PoolView) -> int:
    peaks = view.board.demand.peaks
    return max((peak[1] for peak in peaks if dm.expiry(peak) > view.now), default=0)


def shrink_due(view: PoolView) -> float | None:
    """Return when the pool may shrink if nothing happens until then; None: it may not."""
    board, limits, size = view.board, view.limits, view.size
    if board.current is None or board.candidate is not None or size <= limits.floor:
        return None
    demand = board.demand
    times = [demand.grown_at + dm.WINDOW, demand.shrunk_at + SHRINK_EVERY]
    times += [dm.expiry(peak) for peak in demand.peaks if peak[1] + limits.spare >= size]
    return max(times)
