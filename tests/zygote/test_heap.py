"""The zygote's heap before the fork."""

import gc
import os
import sys

import pytest

from preforkd.errors import ConfigurationError
from preforkd.linux import memory
from preforkd.zygote import heap, immortal
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
    heap.check(immortal_heap=False)
    for refuse in (heap.check, heap.prepare):
        with pytest.raises(
            ConfigurationError, match="cannot be made immortal: it is Tuesday"
        ) as got:
            refuse(immortal_heap=True)
        assert got.value.problems[0].setting == "memory.immortal"
        assert "leave memory.immortal out" in got.value.hint
    monkeypatch.setattr(immortal, "unsupported_reason", lambda: "")
    monkeypatch.setattr(immortal, "self_test", lambda: "pages are written to")
    with pytest.raises(ConfigurationError, match="pages are written to"):
        heap.check(immortal_heap=True)
    monkeypatch.setattr(immortal, "self_test", lambda: os.open("/nowhere", 0))
    with pytest.raises(ConfigurationError, match="self-test could not run"):
        heap.check(immortal_heap=True)
    gc.unfreeze()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this interpreter has immortal objects")
def test_311_is_refused_as_it_is():
    """Nothing is patched here: what an administrator of Debian 12 reads."""
    with pytest.raises(ConfigurationError, match=r"CPython 3\.12 or later, this is 3\.11"):
        heap.check(immortal_heap=True)


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
