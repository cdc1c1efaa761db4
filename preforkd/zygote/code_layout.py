"""Gathering: code that requests run, laid side by side before the fork.

CPython 3.11 and newer write into code while they run it: counters, the history of branches, and faster
instructions in the place of others (PEP 659). That objects are immortal does not change it. What a
request runs is some hundred code objects of many thousand, most of them smaller than 1 KiB, each on
another page that every worker then copies. So the code that a second round of the warm-up has
written into, and preforkd's own, is copied to memory where nothing else lies, and the functions take
the copies.

Code is compared by its value, so a copy is equal to what it was made of. What anything else than
functions and other code refers to, and be it weakly, is left alone: somebody may ask whether it is the
same.
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
"""The modules whose code workers run, without having been warmed up."""
_HOLDERS = 3
"""References to code while it is looked at: ours, the loop's and that of the argument."""


def group_hot_code(rerun: Callable[[], None]) -> int:
    """Lay side by side what ``again`` runs, and preforkd's own; return how many code objects those are.

    ``again`` is to do what has been done before: what is run for the first time writes more.
    """
    before = {key: _written(code) for key, code in _code_of(_functions()).items()}
    rerun()
    gc.collect()
    functions = _functions()
    codes = _code_of(functions)
    hot = {key for key, code in codes.items() if before.get(key, _written(code)) != _written(code)}
    own = [function for function in functions if str(function.__module__).startswith(_OWN)]
    hot |= _code_of(own).keys()
    hot |= _makers_of(hot, codes)
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
    """Return the code of these functions and what is nested in it, by its address."""
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


def _makers_of(hot: set[int], codes: dict[int, CodeType]) -> set[int]:
    # Code in which other is nested makes functions of it each time that it runs.
    makers: dict[int, list[int]] = {}
    for code in codes.values():
        for nested in _nested(code):
            makers.setdefault(id(nested), []).append(id(code))
    found: set[int] = set()
    waiting = list(hot)
    while waiting:
        new = set(makers.get(waiting.pop(), ())) - found
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
    """Return a copy of each that is hot, by the address of what it was made of."""
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

    def work() -> None:
        for key in hot:
            copy(codes[key])

    # CPython's allocator takes what is free in pools that are in use first, malloc(3) what is free in
    # the heap; but a thread has a heap of its own.
    padding.fill_free_blocks()
    thread = threading.Thread(target=work, name="preforkd-gathering")
    thread.start()
    thread.join()
    return copies
