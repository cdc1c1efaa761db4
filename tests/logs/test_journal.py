"""The journal's native protocol, decoded as the journal does."""

import os
import signal
import socket
import struct

import pytest

from preforkd.logs.journal import Journal, stderr_is_journal


def parse(data):
    """Return the fields of an entry."""
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        fields[name.decode()] = value.decode()
        data = rest
    return fields


@pytest.fixture
def journald(tmp_path):
    """A socket in journald's place."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(5)
        yield sock


def test_fields_arrive_whole(journald):
    """One line, several lines, and numbers."""
    journal = Journal(journald.getsockname())
    journal.send({"MESSAGE": "a\nb=c\n", "PRIORITY": 4, "X": "ä"})
    assert parse(journald.recv(65536)) == {"MESSAGE": "a\nb=c\n", "PRIORITY": "4", "X": "ä"}
    journal.close()


def test_a_large_entry_goes_by_memory(journald):
    """What is too large for a datagram arrives as a sealed descriptor."""
    journal = Journal(journald.getsockname())
    journal.send({"MESSAGE": "x" * 5_000_000})
    data, descriptors, _, _ = socket.recv_fds(journald, 10, 1)
    assert data == b""
    with os.fdopen(descriptors[0], "rb") as file:
        file.seek(0)
        assert len(parse(file.read())["MESSAGE"]) == 5_000_000
    journal.close()


def test_the_stream_is_recognised():
    """JOURNAL_STREAM names device and inode of the descriptor; nothing else does."""
    reader, writer = os.pipe()
    status = os.fstat(writer)
    assert stderr_is_journal(f"{status.st_dev}:{status.st_ino}", writer)
    assert not stderr_is_journal("", writer)
    assert not stderr_is_journal("1:2", writer)
    os.close(reader)
    os.close(writer)


def test_a_journal_that_has_another_socket_is_found(tmp_path):
    """The first entry after the change arrives, too."""
    path = str(tmp_path / "socket")
    journal = Journal(path)
    for number in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(path)
            sock.settimeout(5)
            journal.send({"MESSAGE": number})
            assert parse(sock.recv(65536)) == {"MESSAGE": str(number)}
        os.unlink(path)
    with pytest.raises(OSError, match="No such file"):
        journal.send({"MESSAGE": "lost"})
    journal.close()


def fill(journal):
    """Send until the journal takes no more."""
    while True:
        journal.send({"MESSAGE": "x"})


def test_a_wait_is_bounded_whatever_signals_come(tmp_path):
    """A journal that does not read is waited for once, though an interval timer interrupts each wait."""
    came = []

    def count(_number, _frame):
        came.append(1)
        assert len(came) < 200, "the wait begins anew with each signal"

    before = signal.signal(signal.SIGALRM, count)
    journal = Journal(str(tmp_path / "socket"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        try:
            with pytest.raises(BlockingIOError):
                fill(journal)
            seen = len(came)
            with pytest.raises(BlockingIOError):
                journal.send({"MESSAGE": "lost at once"})
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            journal.close()
    assert seen > 5
