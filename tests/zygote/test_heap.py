"""The zygote's heap before the fork."""

import errno
import gc
import logging
import os
import re
import sys

import pytest

from preforkd.errors import ConfigurationError
from preforkd.linux import memory
from preforkd.zygote import heap, immortal, self_test
from tests.zygote.interpreters import run


def in_a_child(function):
    """Return the number that this function returns in a forked child."""
    child = os.fork()
    if child == 0:
        os._exit(function())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_is_loaded_is_out_of_the_collectors_sight():
    """A collection in a child copies next to nothing of 300,000 lists; without it, all of them."""

    def collect(prepare):
        lists = [[number] for number in range(300_000)]
        if prepare:
            heap.prepare(immortal_heap=False)

        def child():
            before = memory.usage().private
            gc.collect()
            assert lists[7] == [7]
            return min(200, (memory.usage().private - before) >> 20)

        return in_a_child(child)

    assert in_a_child(lambda: collect(prepare=False)) >= 15
    assert in_a_child(lambda: collect(prepare=True)) <= 4


def test_garbage_is_gone_before():
    """An unreachable cycle is finalized, and the remaining objects are frozen."""

    def child():
        class Cycle:
            def __init__(self):
                self.me = self

            def __del__(self):
                ended.append(1)

        ended = []
        Cycle()
        heap.prepare(immortal_heap=False)
        return 0 if ended == [1] and gc.get_freeze_count() > 1000 and gc.isenabled() else 1

    assert in_a_child(child) == 0


def test_a_collector_that_the_application_has_switched_off_stays_off():
    """It is the application's to decide."""

    def child():
        gc.disable()
        heap.prepare(immortal_heap=False)
        return int(gc.isenabled())

    assert in_a_child(child) == 0


def test_an_immortal_heap_that_does_not_hold_is_refused(monkeypatch):
    """With the reason, the setting and a hint; nothing is refused if memory.immortal is off."""
    monkeypatch.setattr(immortal, "unsupported_reason", lambda: "it is Tuesday")
    assert not heap.can_be_immortal(False)
    for refuse in (
        lambda: heap.can_be_immortal(True),
        lambda: heap.prepare(immortal_heap=True),
    ):
        with pytest.raises(
            ConfigurationError, match="cannot be made immortal: it is Tuesday"
        ) as got:
            refuse()
        assert got.value.problems[0].setting == "memory.immortal"
        assert "set memory.immortal to auto" in got.value.hint
    monkeypatch.setattr(immortal, "unsupported_reason", lambda: "")
    monkeypatch.setattr(self_test, "run", lambda: "pages are written to")
    with pytest.raises(ConfigurationError, match="pages are written to"):
        heap.can_be_immortal(True)
    monkeypatch.setattr(self_test, "run", _fail)
    with pytest.raises(ConfigurationError, match="self-test could not run"):
        heap.can_be_immortal(True)
    gc.unfreeze()


def _fail():
    raise OSError(errno.EMFILE, "Too many open files")


def test_auto_falls_back(monkeypatch, caplog):
    """With one line that has the reason and the other values; before and after the application is loaded."""
    caplog.set_level(logging.INFO, "preforkd.zygote")
    monkeypatch.setattr(immortal, "unsupported_reason", lambda: "it is Tuesday")
    assert not heap.can_be_immortal("auto")
    heap.prepare(immortal_heap=True, required=False)
    line = (
        "the heap is frozen, not immortal (memory.immortal: auto; true would refuse to start, "
        "false not try): it is Tuesday"
    )
    assert caplog.messages == [line, line]
    assert gc.get_freeze_count() > 1000
    gc.unfreeze()
    caplog.clear()
    monkeypatch.setattr(immortal, "unsupported_reason", lambda: "")
    monkeypatch.setattr(self_test, "run", _fail)
    assert not heap.can_be_immortal("auto")
    monkeypatch.setattr(immortal, "immortalise", _fail)
    heap.prepare(immortal_heap=True, required=False)
    assert [message[-23:] for message in caplog.messages] == ["24] Too many open files"] * 2
    gc.unfreeze()


def test_auto_makes_the_heap_immortal(python):
    """Where the interpreter allows it; the message names the setting."""
    code = """
import logging, sys
from preforkd.zygote import heap, immortal
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
one = ["te" + str(1)]
heap.prepare(immortal_heap=heap.can_be_immortal("auto"), required=False)
print(sys.getrefcount(one[0]) == immortal.COUNT)
"""
    line, immortal_now = run(python, code).splitlines()
    assert re.fullmatch(
        r"\d+ objects are immortal now, in [\d.]+ s \(memory\.immortal: auto; false keeps them mortal\)",
        line,
    )
    assert immortal_now == "True"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this interpreter has immortal objects")
def test_311_is_refused_as_it_is():
    """Nothing is patched here: what an administrator of Debian 12 reads."""
    with pytest.raises(ConfigurationError, match=r"CPython 3\.12 or later, this is 3\.11"):
        heap.can_be_immortal(True)


def test_prepared_twice_as_by_a_refork(python):
    """What a worker has made since is immortal at the second time too, also what only old objects hold."""
    code = """
import gc, os, sys
from preforkd.zygote import heap, immortal
old = {"first": "te" + str(1)}
heap.prepare(immortal_heap=True)
if (child := os.fork()) == 0:
    old["second"] = "only in an old " + str(2)
    old["list"] = [[3.25]]
    heap.prepare(immortal_heap=True)
    young = (old["second"], old["list"], old["list"][0][0])
    print([sys.getrefcount(one) == immortal.COUNT for one in young], gc.isenabled(), flush=True)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(python, code) == "[True, True, True] True\n0\n"
