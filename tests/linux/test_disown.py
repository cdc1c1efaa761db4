"""Children that the application forks lose what is their parent's."""

import os
import socket

from preforkd.linux.disown import Children


def in_child(body):
    """Return what this returns in a forked child: a number below 99."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = int(body())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def is_null(descriptor):
    """Tell whether a descriptor is /dev/null, and close-on-exec as it was."""
    return os.path.samestat(os.fstat(descriptor), os.stat(os.devnull)) and not os.get_inheritable(
        descriptor
    )


def test_a_child_has_nothing_of_ours():
    """The descriptor's number stays taken, so that no file of the child gets it; ours is as it was."""
    ours, other = socket.socketpair()
    children = Children(lambda: (ours.fileno(), -1))
    try:
        assert in_child(lambda: children.here and is_null(ours.fileno())) == 1
        assert in_child(lambda: is_null(other.fileno())) == 0
        assert not children.here
        ours.sendall(b"x")
        assert other.recv(1) == b"x"
    finally:
        children.release()
        ours.close()
        other.close()


def test_what_is_spared_keeps_everything():
    """The next zygote is no child of the application; the one after is again."""
    ours, other = socket.socketpair()
    children = Children(lambda: (ours.fileno(),))
    try:
        with children.spared():
            assert in_child(lambda: is_null(ours.fileno())) == 0
        assert in_child(lambda: is_null(ours.fileno())) == 1
    finally:
        children.release()
        ours.close()
        other.close()


def test_after_its_release_it_does_nothing():
    """What is registered for forks stays so for ever; it has no effect any more."""
    ours, other = socket.socketpair()
    children = Children(lambda: (ours.fileno(),))
    children.release()
    assert in_child(lambda: children.here or is_null(ours.fileno())) == 0
    ours.close()
    other.close()


def test_the_descriptors_are_those_of_the_moment():
    """What was opened since is included, what was closed is not."""
    pairs = [socket.socketpair()]
    children = Children(lambda: (first.fileno() for first, _ in pairs))
    try:
        pairs.append(socket.socketpair())
        assert in_child(lambda: all(is_null(first.fileno()) for first, _ in pairs)) == 1
    finally:
        children.release()
        for pair in pairs:
            for sock in pair:
                sock.close()
