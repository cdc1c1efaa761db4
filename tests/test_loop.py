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


# --- on a fake clock ------------------------------------------------------------------------------


class Epoll:
    """An epoll that does not wait: the clock of its loop goes on instead."""

    def __init__(self, loop, real):
        self.loop, self.real, self.timeouts = loop, real, []

    def poll(self, timeout):
        self.timeouts.append(timeout)
        assert len(self.timeouts) < 100, "the loop spins"
        if timeout > 0:
            self.loop.now += timeout
        return self.real.poll(0)

    def __getattr__(self, name):
        return getattr(self.real, name)


class ClockLoop(Loop):
    """A loop whose time is the test's."""

    def __init__(self):
        super().__init__()
        self.now = 100.0
        self._epoll = Epoll(self, self._epoll)

    def time(self):
        return self.now


@pytest.fixture
def clock():
    """A loop on a fake clock that begins at 100 s."""
    loop = ClockLoop()
    yield loop
    loop.close()


def test_a_timer_comes_at_its_time_exactly(clock):
    """The loop sleeps until then: not a second longer, and not in two sleeps."""
    told = []
    clock.call_later(0.25, lambda: told.append(clock.now))
    clock.call_at(100.5, lambda: (told.append(clock.now), clock.stop()))
    clock.run()
    assert told == [100.25, 100.5]
    assert clock._epoll.timeouts == [0.25, 0.25]


def test_a_timer_that_is_late_comes_at_once(clock):
    """Whatever held the loop up; the one after it, too, if it is due."""
    told = []
    clock.call_at(99.0, told.append, "late")
    clock.call_at(100.0, lambda: (told.append("due"), clock.stop()))
    clock.call_at(100.001, told.append, "not yet")
    clock.run()
    assert told == ["late", "due"]
    assert clock._epoll.timeouts == [0.0]


def test_how_long_the_loop_sleeps(clock):
    """Not at all while a call or a stop waits, for ever without timers, never for a cancelled timer."""
    assert clock._poll_timeout() == -1.0
    clock.call_at(105.0, print)
    assert clock._poll_timeout() == 5.0
    first, second = clock.call_at(101.0, print), clock.call_at(102.0, print)
    assert clock._poll_timeout() == 1.0
    first.cancel()
    assert clock._poll_timeout() == 2.0
    second.cancel()
    assert clock._poll_timeout() == 5.0
    assert len(clock._timers) == 1
    clock.call_soon(print)
    assert clock._poll_timeout() == 0.0
    clock._soon.clear()
    clock.stop()
    assert clock._poll_timeout() == 0.0


def test_timers_of_the_same_time_all_come(clock):
    """Also those that a call of that time adds, in the next turn."""
    told = []

    def first():
        told.append("first")
        clock.call_at(101.0, lambda: (told.append("added"), clock.stop()))

    clock.call_at(101.0, first)
    clock.call_at(101.0, told.append, "second")
    clock.run()
    assert sorted(told[:2]) == ["first", "second"]
    assert told[2:] == ["added"]


def test_cancelled_timers_are_swept_from_64_on(clock):
    """When the 65th is set; the next sweep comes when twice as many as were left are there."""
    timers = [clock.call_at(200.0 + number, print) for number in range(64)]
    for timer in timers[:63]:
        timer.cancel()
    assert len(clock._timers) == 64
    clock.call_at(101.0, print)
    assert len(clock._timers) == 2
    assert clock._timers[0].when == 101.0
    for number in range(62):
        clock.call_at(300.0 + number, print)
    assert len(clock._timers) == clock._sweep_at == 64
    clock.call_at(400.0, print)
    assert clock._sweep_at == 128
    assert len(clock._timers) == 65


# --- descriptors and signals ----------------------------------------------------------------------


def turn(loop):
    """Let the loop turn once."""
    loop.stop()
    loop._turn()
    loop._stopped = False


def test_a_reader_and_a_writer_of_one_descriptor_are_called_for_what_each_waits_for(loop, pair):
    """Room alone is nothing to read; each goes on when the other is removed."""
    ours, theirs = pair
    told = []
    loop.add_reader(ours.fileno(), told.append, "data")
    loop.add_writer(ours.fileno(), told.append, "room")
    turn(loop)
    assert told == ["room"]
    theirs.send(b"x")
    turn(loop)
    assert sorted(told[1:]) == ["data", "room"]
    loop.remove_writer(ours.fileno())
    turn(loop)
    assert told[3:] == ["data"]
    loop.add_writer(ours.fileno(), told.append, "room")
    loop.remove_reader(ours.fileno())
    turn(loop)
    assert told[4:] == ["room"]


def test_a_hangup_is_for_the_reader_and_the_writer(loop, pair):
    """Each finds it by a system call of its own."""
    ours, theirs = pair
    told = []
    loop.add_reader(ours.fileno(), told.append, "reader")
    loop.add_writer(ours.fileno(), told.append, "writer")
    theirs.close()
    turn(loop)
    assert sorted(told) == ["reader", "writer"]


def test_data_alone_calls_no_writer(loop, pair):
    """A writer of a full socket waits for room, however much there is to read."""
    ours, theirs = pair
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(bytes(65536))
    told = []
    loop.add_writer(ours.fileno(), told.append, "room")
    loop.add_reader(ours.fileno(), told.append, "data")
    theirs.send(b"x")
    turn(loop)
    assert told == ["data"]


def test_who_is_replaced_in_a_turn_is_not_called_in_it(loop, pair):
    """Its call was due already; the new reader's comes in the next turn."""
    ours, theirs = pair
    told = []
    theirs.send(b"x")
    loop.call_soon(loop.add_reader, ours.fileno(), told.append, "new")
    loop.add_reader(ours.fileno(), told.append, "former")
    turn(loop)
    assert told == []
    turn(loop)
    assert told == ["new"]


def test_signals_wake_the_loop_by_its_own_pipe_without_warnings(loop, monkeypatch):
    """Set once for all signals, and taken back at the end; a full pipe is no reason for a warning."""
    calls = []

    def set_wakeup_fd(descriptor, **options):
        calls.append((descriptor, options))

    monkeypatch.setattr(signal, "set_wakeup_fd", set_wakeup_fd)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, print)
    pipe = (loop._wakeup_write, {"warn_on_full_buffer": False})
    assert calls == [pipe]
    loop.close()
    assert calls == [pipe, (-1, {})]
    loop.__init__()
    loop.close()
    assert len(calls) == 2
    loop.__init__()


def test_a_signal_that_nobody_asked_for_is_passed_over(loop):
    """Its number stands in the pipe all the same: another library may have set its handler."""
    told = []
    loop.add_signal_handler(signal.SIGUSR1, told.append, "one")
    before = signal.signal(signal.SIGUSR2, lambda *_: told.append("not ours"))
    try:
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR2)
        turn(loop)
        turn(loop)
        assert told == ["not ours"]
        os.kill(os.getpid(), signal.SIGUSR1)
        turn(loop)
        turn(loop)
        assert told == ["not ours", "one"]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_signals_last_handler_counts_and_the_first_one_before_comes_back(loop):
    """However often it is set anew."""
    before, told = signal.getsignal(signal.SIGUSR1), []
    loop.add_signal_handler(signal.SIGUSR1, told.append, "former")
    loop.add_signal_handler(signal.SIGUSR1, told.append, "last")
    os.kill(os.getpid(), signal.SIGUSR1)
    turn(loop)
    turn(loop)
    assert told == ["last"]
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is before
    loop.__init__()


def test_a_closed_loop_has_given_its_descriptors_back():
    """The pipe's two ends and the epoll's."""
    loop = Loop()
    descriptors = (loop._wakeup_read, loop._wakeup_write, loop._epoll.fileno())
    loop.close()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
