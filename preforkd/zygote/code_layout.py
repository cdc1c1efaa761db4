"""Code layout: code that requests execute is copied to adjacent memory before the fork.

CPython 3.11 and later write into code while executing it: counters, the history of branches, specialised
instructions (PEP 659).  Immortality does not change that.  A request executes some hundred of many thousand
code objects, most of them smaller than 1 KiB and each on a different page, which every worker would copy.  So
the code that a second warm-up writes into, and preforkd's own, is copied to memory that contains nothing else,
and the functions are given the copies.

Code objects compare by value, so a copy is equal to its original.  Code that anything but functions and other
code refers to, even weakly, is not replaced: its identity may matter.
"""

import contextlib
import gc
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType
from typing import Any

from preforkd.zygote import padding

_OWN = "preforkd."
"""The prefix of modules that workers execute and the warm-up may not have."""
_HOLDERS = 3 if sys.version_info < (3, 14) else 2
"""References to a code object while it is examined: the dictionary, the loop variable and the argument.

From 3.14 on the argument is a borrowed reference, which is not counted.
"""


def group_hot_code(rerun: Callable[[], None]) -> int:
    """Copy the code that ``rerun`` executes, and preforkd's own, to adjacent memory; return the number of copies.

    ``rerun`` must repeat what was executed before: the first execution writes more.
    """
    before = {key: _written(code) for key, code in _code_of(_functions()).items()}
    rerun()
    gc.collect()
    functions = _functions()
    codes = _code_of(functions)
    hot = {key for key, code in codes.items() if before.get(key, _written(code)) != _written(code)}
    own = [function for function in functions if str(function.__module__).startswith(_OWN)]
    hot |= _code_of(own).keys()
    hot |= _containing(hot, codes)
    hot -= _held_by_others(functions, codes)
    del before
    copies = _copies(codes, hot)
    del codes
    for function in functions:
        copy = copies.get(id(function.__code__))
        if copy is not None:
            with contextlib.suppress(Exception):  # an audit hook may forbid it
                function.__code__ = copy
    return len(copies)


def _functions() -> list[FunctionType]:
    return [each for each in gc.get_objects() if type(each) is FunctionType]


def _written(code: Any) -> int:
    return hash(code._co_code_adaptive)


def _code_of(functions: Iterable[FunctionType]) -> dict[int, CodeType]:
    """Return the code of these functions and the code nested in it, by address."""
    found: dict[int, CodeType] = {}
    waiting = [function.__code__ for function in functions]
    while waiting:
        code = waiting.pop()
        if id(code) not in found:
            found[id(code)] = code
            waiting += _nested(code)
    return found


def _nested(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if type(each) is CodeType]


def _containing(hot: set[int], codes: dict[int, CodeType]) -> set[int]:
    # Code that contains nested code creates functions from it whenever it runs: copy it, too.
    containers: dict[int, list[int]] = {}
    for code in codes.values():
        for nested in _nested(code):
            containers.setdefault(id(nested), []).append(id(code))
    found: set[int] = set()
    waiting = list(hot)
    while waiting:
        new = set(containers.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found


def _held_by_others(functions: list[FunctionType], codes: dict[int, CodeType]) -> set[int]:
    known = Counter(id(function.__code__) for function in functions)
    for code in codes.values():
        known.update(map(id, _nested(code)))
    return {
        id(code)
        for code in codes.values()
        if sys.getrefcount(code) != known[id(code)] + _HOLDERS or weakref.getweakrefcount(code)
    }


def _copies(codes: dict[int, CodeType], hot: set[int]) -> dict[int, CodeType]:
    """Return a copy of each hot code object, by the address of the original."""
    copies: dict[int, CodeType] = {}

    def copy(code: CodeType) -> CodeType:
        if id(code) not in hot:
            return code
        if id(code) not in copies:
            constants = tuple(
                copy(each) if type(each) is CodeType else each for each in code.co_consts
            )
            copies[id(code)] = code.replace(co_consts=constants)
        return copies[id(code)]

    def copy_all() -> None:
        for key in hot:
            copy(codes[key])

    # Fill free blocks of pools, which the allocator would use first; larger copies are allocated in a
    # thread, for which malloc(3) uses another heap.
    padding.fill_free_blocks()
    thread = threading.Thread(target=copy_all, name="preforkd-code-layout")
    thread.start()
    thread.join()
    return copies
