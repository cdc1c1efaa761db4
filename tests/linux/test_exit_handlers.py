"""What was there before a fork is not ended by the process that was forked."""

import gc
import logging
import logging.handlers
import multiprocessing
import os
import tempfile
import threading
import weakref
from multiprocessing import managers, process

import pytest

from preforkd.linux import exit_handlers
from tests.linux.forked import in_child


@pytest.fixture
def withheld():
    held = exit_handlers.DeferredExitHandlers()
    yield held
    held.restore()


class Thing:
    """Something with a finalizer."""


def test_finalizers_of_before_the_fork(withheld):
    """At exit they run in their creator only; later ones, and those of objects that die, run anywhere."""
    thing, calls = Thing(), []
    finalizer = weakref.finalize(thing, calls.append, "early")
    never = weakref.finalize(thing, calls.append, "never")
    never.atexit = False
    withheld.defer()

    def leaves():
        later = weakref.finalize(withheld, calls.append, "later")
        assert later.atexit
        weakref.finalize._exitfunc()
        return calls == ["later"]

    assert in_child(leaves) == 1
    withheld.restore()
    assert finalizer.atexit
    assert not never.atexit
    withheld.defer()
    withheld.defer()
    del thing
    gc.collect()
    assert sorted(calls) == ["early", "never"]
    withheld.restore()
    assert not finalizer.alive


def test_a_temporary_directory(withheld):
    """A process that was forked leaves it; one that removes it itself may."""
    with tempfile.TemporaryDirectory() as folder:
        withheld.defer()
        assert in_child(lambda: (weakref.finalize._exitfunc(), os.path.isdir(folder))[1]) == 1
        assert os.path.isdir(folder)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_children_of_multiprocessing(withheld):
    """A forked process has none; its parent has them again before it ends."""
    child = multiprocessing.get_context("fork").Process(target=threading.Event().wait, daemon=True)
    child.start()
    try:
        withheld.defer()
        assert in_child(lambda: len(process.active_children())) == 0
        withheld.restore()
        assert process.active_children() == [child]
    finally:
        child.kill()
        child.join()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_manager_of_before_the_fork(withheld):
    """Each newborn process speaks with it by a connection of its own."""
    with managers.SyncManager(ctx=multiprocessing.get_context("fork")) as manager:
        shared = manager.dict(n=1)
        assert shared["n"] == 1
        ours = shared._tls.connection.fileno()
        withheld.defer()

        def newborn():
            exit_handlers.reset_multiprocessing()
            assert "connection" not in vars(shared._tls) or shared._tls.connection.fileno() != ours
            shared["n"] += 1
            return shared["n"]

        assert [in_child(newborn), in_child(newborn)] == [2, 3]
        assert shared["n"] == 3


def test_a_server_of_forks_of_before_the_fork():
    """A newborn process starts one of its own: it cannot wait for its parent's."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([])
    assert _doubled(context) == 42

    def newborn():
        exit_handlers.reset_multiprocessing()
        doubled = _doubled(context)
        multiprocessing.forkserver._forkserver._stop()
        return doubled

    try:
        assert in_child(newborn) == 42
        assert _doubled(context) == 42
    finally:
        multiprocessing.forkserver._forkserver._stop()


def _doubled(context):
    child = context.Process(target=os._exit, args=(42,))
    child.start()
    child.join(30)
    return child.exitcode


def test_records_that_a_handler_has_collected():
    """They are written once, before the fork; a handler that fails is passed over."""
    written = []

    class Target(logging.Handler):
        def emit(self, record):
            written.append(record.getMessage())

    class Failing(logging.Handler):
        def flush(self):
            raise RuntimeError

    handlers = [logging.handlers.MemoryHandler(10, target=Target()), Failing()]
    handlers[0].handle(logging.makeLogRecord({"msg": "hello", "levelno": logging.INFO}))
    exit_handlers.flush_logging()
    exit_handlers.flush_logging()
    assert written == ["hello"]
    del handlers
