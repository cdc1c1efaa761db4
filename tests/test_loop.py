"""The master's event loop."""

import contextlib
import os
import signal
import socket
import threading

import pytest

from preforkd.loop import Loop


@pytest.fixture
def loop():
    """A loop that is closed in the end, and that a test cannot wait in for ever."""
    loop = Loop()
    loop.call_later(20, pytest.fail, "the loop still runs")
    yield loop
    loop.close()


@pytest.fixture
def pair():
    """Two connected sockets that do not block."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_calls_come_when_they_are_due_and_in_their_order(loop):
    """Soon, later and at a time; none before its time, and what is cancelled never."""
    began, told = loop.time(), []
    loop.call_later(0.03, told.append, "third")
    loop.call_at(began + 0.01, told.append, "second")
    loop.call_later(0.02, told.append, "never").cancel()
    loop.call_soon(told.append, "never").cancel()
    loop.call_soon(told.append, "first")
    loop.call_later(0.05, lambda: (told.append(loop.time() - began >= 0.05), loop.stop()))
    loop.run()
    assert told == ["first", "second", "third", True]


def test_what_is_asked_for_in_a_turn_comes_in_the_next_one(loop, pair):
    """A call that asks for itself for ever does not keep descriptors and timers waiting."""
    ours, theirs = pair
    turns, told = [], []

    def again():
        turns.append(len(turns))
        loop.call_soon(again)

    again()
    loop.add_reader(ours.fileno(), lambda: told.append(ours.recv(9)))
    loop.call_soon(theirs.send, b"x")
    loop.call_later(0.02, loop.stop)
    loop.run()
    assert told == [b"x"]
    assert len(turns) > 2


def test_a_descriptor_is_told_of_while_there_is_something(loop, pair):
    """Data, room, and the end; each in every turn until it is dealt with or watched no more."""
    ours, theirs = pair
    told = []

    def read():
        told.append(ours.recv(1))
        if not told[-1]:
            loop.remove_reader(ours.fileno())
            loop.call_soon(loop.stop)

    def write():
        told.append("room")
        loop.remove_writer(ours.fileno())
        theirs.sendall(b"ab")
        theirs.close()

    loop.add_writer(ours.fileno(), write)
    loop.add_reader(ours.fileno(), read)
    loop.run()
    assert told == ["room", b"a", b"b", b""]


def test_a_hangup_is_news_for_who_waits_to_write(loop, pair):
    """He finds it by writing; nobody waits for ever for room in a socket that has none any more."""
    ours, theirs = pair
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(bytes(65536))
    told = []

    def write():
        try:
            ours.send(b"x")
        except BrokenPipeError:
            told.append("gone")
            loop.remove_writer(ours.fileno())
            loop.stop()

    loop.add_writer(ours.fileno(), write)
    loop.call_later(0.01, theirs.close)
    loop.run()
    assert told == ["gone"]


def test_who_is_removed_in_a_turn_is_not_called_in_it(loop, pair):
    """Also where both had something, and the first removed the second."""
    ours, theirs = pair
    told = []

    def take(mine, other):
        told.append(mine)
        for sock in (mine, other):
            loop.remove_reader(sock.fileno())
        loop.call_soon(loop.stop)

    ours.send(b"x")
    theirs.send(b"x")
    loop.add_reader(ours.fileno(), take, ours, theirs)
    loop.add_reader(theirs.fileno(), take, theirs, ours)
    loop.run()
    assert len(told) == 1


def test_the_last_who_watches_a_descriptor_counts(loop, pair):
    """One reader each: a new one takes the place of the one before."""
    ours, theirs = pair
    theirs.send(b"x")
    loop.add_reader(ours.fileno(), pytest.fail, "the one before was called")
    loop.add_reader(ours.fileno(), loop.stop)
    loop.run()


def test_a_descriptor_that_was_closed_first(loop):
    """To remove it is harmless, its number may be watched again, and what cannot be watched is said."""
    reads, writes = os.pipe()
    loop.add_reader(reads, pytest.fail, "a closed descriptor was called")
    os.close(reads)
    loop.remove_reader(reads)
    loop.remove_reader(reads)
    again = os.dup(writes)
    loop.add_writer(again, loop.stop)
    loop.run()
    os.close(again)
    os.close(writes)
    reads, writes = os.pipe()
    loop.add_writer(writes, pytest.fail, "a closed descriptor was called")
    os.close(writes)
    assert os.dup(reads) == writes
    os.close(reads)
    loop.add_reader(writes, loop.stop)
    loop.run()
    os.close(writes)
    loop.remove_reader(writes)
    with pytest.raises(OSError, match="Bad file descriptor"):
        loop.add_reader(writes, pytest.fail, "it is closed")
    loop.remove_reader(writes)


def test_signals_are_calls_like_others(loop):
    """One after the other in the loop, with their arguments, and not where they interrupted."""
    told = []
    before = signal.getsignal(signal.SIGUSR1)
    loop.add_signal_handler(signal.SIGUSR1, told.append, "one")
    loop.add_signal_handler(signal.SIGUSR2, lambda: (told.append("two"), loop.stop()))

    def send():
        os.kill(os.getpid(), signal.SIGUSR1)
        told.append("sent")
        os.kill(os.getpid(), signal.SIGUSR2)

    loop.call_soon(send)
    loop.run()
    assert told == ["sent", "one", "two"]
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is before
    loop.__init__()


def test_a_thread_wakes_the_loop(loop):
    """What threads ask for is called in the loop's thread, every time, also when many ask at once."""
    told = []

    def ask(number):
        for _ in range(500):
            loop.call_soon_threadsafe(tell, number)

    def tell(number):
        told.append((number, threading.current_thread()))
        if len(told) == 4000:
            loop.stop()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    loop.call_later(0.01, lambda: [thread.start() for thread in threads])
    loop.run()
    for thread in threads:
        thread.join()
    assert {thread for _, thread in told} == {threading.current_thread()}
    assert sorted(number for number, _ in told) == sorted(list(range(8)) * 500)


def test_a_loop_that_does_not_read_holds_no_thread_up(loop):
    """The pipe that wakes it may be full: each call comes nevertheless."""
    told = []
    for number in range(70_000):
        loop.call_soon_threadsafe(told.append, number)
    loop.call_soon(loop.stop)
    loop.run()
    assert told == list(range(70_000))


def test_a_closed_loop_says_so():
    """To threads that come late."""
    loop = Loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon_threadsafe(print)


def test_a_call_that_fails_is_told_and_the_others_go_on(loop, caplog):
    """With its stack: it is a defect of ours."""
    told = []
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(told.append, "next")
    loop.call_soon(loop.stop)
    loop.run()
    assert told == ["next"]
    (record,) = caplog.records
    assert record.exc_info[0] is ZeroDivisionError


def test_a_stop_before_the_run_counts(loop):
    """Once: the next run goes on until the next stop."""
    told = []
    loop.stop()
    loop.call_soon(told.append, "never in the first run")
    loop.run()
    assert told == []
    loop.call_soon(loop.stop)
    loop.run()
    assert told == ["never in the first run"]


def test_cancelled_timers_do_not_gather(loop):
    """One that is set anew a million times a day, each time for a minute, does not fill the memory."""
    kept = [loop.call_later(1000, pytest.fail) for _ in range(10)]
    for _ in range(10_000):
        loop.call_later(1000, pytest.fail).cancel()
    assert len(loop._timers) < 200
    assert all(timer in loop._timers for timer in kept)


def test_an_idle_loop_sleeps(loop):
    """It turns for what happens, and for nothing else."""
    turns, turn = [], loop._turn

    def counted():
        turns.append(1)
        turn()

    loop._turn = counted
    loop.call_later(0.2, loop.stop)
    loop.run()
    assert len(turns) <= 3
