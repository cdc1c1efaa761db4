"""Children that the application forks lose what is their parent's."""

import os
import signal
import socket
import threading

import pytest

from preforkd.linux.atfork import ApplicationChildren
from tests.linux.forked import in_child


def is_null(descriptor):
    """Return whether a descriptor is /dev/null, and close-on-exec as it was."""
    return os.path.samestat(os.fstat(descriptor), os.stat(os.devnull)) and not os.get_inheritable(
        descriptor
    )


def test_a_child_has_nothing_of_ours():
    """The descriptor's number stays taken, so that no file of the child gets it; ours is as it was."""
    ours, other = socket.socketpair()
    children = ApplicationChildren(lambda: (ours.fileno(), -1))
    try:
        assert in_child(lambda: children.in_child and is_null(ours.fileno())) == 1
        assert in_child(lambda: is_null(other.fileno())) == 0
        assert not children.in_child
        ours.sendall(b"x")
        assert other.recv(1) == b"x"
    finally:
        children.disable()
        ours.close()
        other.close()


def test_what_is_spared_keeps_everything():
    """The next zygote is no child of the application; the one after is again."""
    ours, other = socket.socketpair()
    children = ApplicationChildren(lambda: (ours.fileno(),))
    try:
        with children.exempt():
            assert in_child(lambda: is_null(ours.fileno())) == 0
        assert in_child(lambda: is_null(ours.fileno())) == 1
    finally:
        children.disable()
        ours.close()
        other.close()


def test_after_its_release_it_does_nothing():
    """What is registered for forks stays so for ever; it has no effect any more."""
    ours, other = socket.socketpair()
    children = ApplicationChildren(lambda: (ours.fileno(),))
    children.disable()
    assert in_child(lambda: children.in_child or is_null(ours.fileno())) == 0
    ours.close()
    other.close()


def test_the_descriptors_are_those_of_the_moment():
    """What was opened since is included, what was closed is not."""
    pairs = [socket.socketpair()]
    children = ApplicationChildren(lambda: (first.fileno() for first, _ in pairs))
    try:
        pairs.append(socket.socketpair())
        assert in_child(lambda: all(is_null(first.fileno()) for first, _ in pairs)) == 1
    finally:
        children.disable()
        for pair in pairs:
            for sock in pair:
                sock.close()


_at_birth = []
"""What is done in children before anything that tests register; see os.register_at_fork."""
os.register_at_fork(after_in_child=lambda: [do() for do in _at_birth])


@pytest.fixture
def children():
    """Watch for children while a test has handlers that look like preforkd's."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    watch = ApplicationChildren(tuple)
    yield watch
    if not watch.in_child:
        watch.disable()
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)


def ours(_number, _frame):
    """Stand for a handler of preforkd's."""


ours.__module__ = "preforkd.worker.acceptor"


def theirs(_number, _frame):
    """Stand for a handler of the application's."""


def test_a_child_has_the_usual_signal_handlers(children):
    """Where preforkd has its own; the application's stay, no descriptor is written to, nothing is blocked."""
    signal.signal(signal.SIGTERM, ours)
    signal.signal(signal.SIGINT, ours)
    signal.signal(signal.SIGUSR1, theirs)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())

    def as_usual():
        assert signal.set_wakeup_fd(-1) == -1
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGUSR1) is theirs
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN
        return signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with reader, writer:
        assert in_child(as_usual) == 1
        # What a thread forks as well: it is the main thread there.
        found = []
        thread = threading.Thread(target=lambda: found.append(in_child(as_usual)))
        thread.start()
        thread.join()
        assert found == [1]
        assert signal.getsignal(signal.SIGTERM) is ours
        assert signal.set_wakeup_fd(-1) == writer.fileno()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def test_a_signal_that_comes_at_once_ends_the_child(children):
    """Between the fork and the change of its handlers nothing is lost."""
    calls = []
    signal.signal(signal.SIGTERM, lambda *_: calls.append(1))
    signal.getsignal(signal.SIGTERM).__module__ = "preforkd.worker.acceptor"
    _at_birth.append(lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        assert in_child(lambda: 0) == -signal.SIGTERM
    finally:
        _at_birth.clear()


def test_what_a_child_opens_is_left_to_its_children(children):
    """A daemon closes all that it finds, opens its own, and forks: nothing of that is replaced."""
    sock, other = socket.socketpair()
    children._ours = lambda: (number,)
    number = sock.fileno()

    def daemon():
        os.close(number)
        reader, _ = os.pipe()
        os.dup2(reader, number)
        return in_child(lambda: is_null(number))

    with sock, other:
        assert in_child(daemon) == 0
