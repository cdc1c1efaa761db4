"""The self-test of the immortal heap: whether this interpreter treats objects as `immortal` expects."""

import gc
import os
import signal
import sys
import weakref
from itertools import chain
from typing import Any

from preforkd.linux import memory
from preforkd.zygote import immortal

_OBJECTS = 8192
"""Floats that are used: 32 bytes each, 64 pages in total."""
_TIMEOUT = 30
"""Seconds after which a process of the self-test is killed."""


def run() -> str:
    """Test immortality in a forked child: return why it does not work here, empty if it does.

    A child of that child uses as many immortal as mortal objects; the counts of the immortal ones must not
    change, and their pages must stay shared. Then the heap of the child is made immortal, and garbage is
    collected. `immortal.unsupported_reason` must be empty. Raises OSError.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        signal.alarm(_TIMEOUT)
        try:
            verdict = _verify()
        except BaseException as error:
            verdict = repr(error)
        os.write(write, (verdict or "holds").encode())
        os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8", errors="replace") as answers:
        verdict = answers.read()
    _, status = os.waitpid(child, 0)
    if not verdict:
        return f"the process of the self-test ended with {os.waitstatus_to_exitcode(status)}"
    return "" if verdict == "holds" else verdict


def _verify() -> str:
    gc.disable()
    fixed, mortal = ([float(number) for number in range(_OBJECTS)] for _ in range(2))
    others = [
        object(),
        f"text {os.getpid()}",
        {"key": 1},
        (fixed, 2),
        _verify,
        type("New", (), {}),
    ]
    with immortal.open_counts() as counts:
        counts.write(tuple(fixed))
        counts.write(tuple(others))
        if any(counts.mortal(tuple(others))) or not all(counts.mortal(tuple(mortal))):
            return "reference counts do not have the value that was written"
    child = os.fork()
    if child == 0:
        signal.alarm(_TIMEOUT)
        os._exit(_use_and_measure(fixed, mortal, others))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        return _VERDICTS.get(code, f"a process that used immortal objects ended with {code}")
    return "" if _collects() else "garbage is not collected beside an immortal heap"


_VERDICTS = {
    3: "the reference counts of immortal objects change",
    4: "pages with immortal objects are written to when the objects are used",
}


def _use_and_measure(fixed: list[Any], mortal: list[Any], others: list[Any]) -> int:
    objects = [*fixed, *others]
    # Pages that any first use copies are copied by using the few objects, and one object as often as the
    # measured ones: a JIT compiles the loops.
    rehearsal = [others, [None] * _OBJECTS, [None] * _OBJECTS]
    for each in rehearsal:
        _private_after_using(each)
    private = [_private_after_using(each) for each in (others, fixed, mortal)]
    copies = [list(objects) for _ in range(3)]
    copies.clear()
    if any(sys.getrefcount(one) != immortal.COUNT for one in objects):
        return 3
    by_fixed, by_mortal = private[1] - private[0], private[2] - private[1]
    return 4 if by_fixed * 4 > by_mortal else 0


def _private_after_using(objects: list[Any]) -> int:
    for _object in objects:
        pass
    for _object in chain(objects):  # a reference from C code, which the interpreter owns
        pass
    return memory.usage().private


class _Cycle:
    def __init__(self) -> None:
        self.me = self


def _collects() -> bool:
    kept = _Cycle()
    ends: list[int] = []
    immortal.immortalise()
    weakref.finalize(_Cycle(), ends.append, 1)
    gc.collect()
    return ends == [1] and sys.getrefcount(kept) == immortal.COUNT
