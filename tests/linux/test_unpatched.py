"""preforkd's modules keep the standard library as it was, in an interpreter of its own for each test."""

import subprocess
import sys

import pytest

BEGIN = """
import os, select, socket, sys, threading, time, types, _thread
from types import ModuleType

ours = ModuleType("preforkd.something")
for module in (os, select, socket, threading, time):
    setattr(ours, module.__name__, module)
sys.modules["preforkd.something"] = ours

from preforkd.linux.unpatched import UnpatchedModules, reset_hubs

library = UnpatchedModules()

def never(*_arguments, **_named):
    raise AssertionError("what has been replaced was used")

never.__module__ = "greens.patcher"
"""
PATCH = """
epoll = select.epoll
del select.epoll
_thread.start_new_thread = threading._start_new_thread = never
for name in ("start_joinable_thread", "_start_joinable_thread"):
    for module in (_thread, threading):
        if hasattr(module, name):
            setattr(module, name, never)
_thread.allocate_lock = threading.Lock = threading._allocate_lock = never
socket.socket = time.sleep = os.fork = never
"""


def run(code):
    """Run this after the beginning."""
    done = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_copied_where_nothing_was_replaced():
    """The modules stay what they are."""
    run(
        "library.restore()\nassert ours.socket is socket\nassert ours.threading is threading\n"
        "assert not library.replaced()\nassert library.greenlet_package() == ''\n"
    )


@pytest.mark.parametrize("early", [True, False])
def test_what_was_replaced_is_as_it_was_for_us(early):
    """Threads, locks, sockets, epolls, clocks, forks; also in modules that are loaded later."""
    later = (
        "library.restore()\nagain = ModuleType('preforkd.later')\nagain.select = select\n"
        "sys.modules['preforkd.later'] = again\n"
    )
    run(
        PATCH
        + (later if early else "")
        + """
library.restore()
assert ours.select.epoll is epoll and not hasattr(select, "epoll")
if "preforkd.later" in sys.modules:
    assert sys.modules["preforkd.later"].select.epoll is epoll
done = []
thread = ours.threading.Thread(target=done.append, args=(ours.threading.get_native_id(),), name="x")
event = ours.threading.Event()
thread.start()
thread.join()
assert len(done) == 1
assert not event.wait(0.01)
with ours.threading.Semaphore(1), ours.threading.RLock(), ours.threading.Lock():
    pass
left, right = ours.socket.socketpair()
assert type(left) is ours.socket.socket is not never
ours.time.sleep(0)
pid = ours.os.fork()
if pid == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert time.sleep is never and threading.Lock is never
assert library.replaced()["time.sleep"] == "greens"
assert library.greenlet_package() == "greens"
assert ours.os.environ is os.environ
left.close(); right.close()
"""
    )


def test_a_clock_that_is_replaced_is_no_matter_of_greenlets():
    """It is kept from us, and nothing is refused for it."""
    run(
        "time.monotonic = never\nlibrary.restore()\nassert ours.time.monotonic() > 0\n"
        "assert library.greenlet_package() == ''\nassert ours.socket is socket\n"
    )


def test_one_who_replaces_without_a_name():
    """Then it is the application."""
    run("del select.epoll\nassert library.greenlet_package() == 'the application'\n")


def test_hubs_are_renewed_where_there_are_any():
    """gevent's by its own function; nothing happens without, or when it fails."""
    run("""
reset_hubs()
calls = []
sys.modules["gevent"] = types.SimpleNamespace(reinit=lambda: calls.append("gevent"))
hub = types.SimpleNamespace(_threadlocal=types.SimpleNamespace(hub=1), use_hub=lambda: calls.append("eventlet"))
sys.modules["eventlet.hubs"] = hub
reset_hubs()
del hub._threadlocal.hub
sys.modules["gevent"] = None
reset_hubs()
assert calls == ["gevent", "eventlet"], calls
""")
