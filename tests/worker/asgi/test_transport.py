"""The transport of plain connections, over a socket pair with real buffers."""

import asyncio
import socket

import pytest

from preforkd.worker.asgi.transport import SocketTransport


class Recorder(asyncio.Protocol):
    """Record what the transport calls; ``keep``: stay open at the end of the input."""

    def __init__(self, *, keep=False, fails=False):
        self.keep, self.fails = keep, fails
        self.data = b""
        self.calls = []
        self.came = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        self.came.set()
        if self.fails:
            raise KeyError("in the protocol")

    def __getattribute__(self, name):
        if name in {"pause_writing", "resume_writing", "eof_received", "connection_lost"}:
            return lambda *arguments: self.record(name, *arguments)
        return super().__getattribute__(name)

    def record(self, name, *arguments):
        self.calls.append(name)
        self.came.set()
        return self.keep

    async def until(self, holds):
        while not holds():
            self.came.clear()
            await self.came.wait()


def run(talk, **how):
    """Run ``talk(client, transport, protocol)`` over TCP on the loopback."""
    errors = []

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname(), timeout=20)
            sock, _ = listener.accept()
        protocol = Recorder(**how)
        transport = SocketTransport(
            asyncio.get_running_loop(), sock, protocol, errors.append, lambda: None
        )
        transport.begin()
        with client:
            try:
                await asyncio.wait_for(talk(client, transport, protocol), 20)
            finally:
                transport.abort()
                await protocol.until(lambda: "connection_lost" in protocol.calls)
        assert sock.fileno() == -1
        assert protocol.calls.count("connection_lost") == 1

    asyncio.run(main())
    return errors


def test_data_goes_both_ways():
    """Small and large; what is not sent yet is sent before the end."""

    async def talk(client, transport, protocol):
        client.sendall(b"hello")
        await protocol.until(lambda: protocol.data == b"hello")
        transport.write(b"x" * 9_000_000)
        transport.write(b"end")
        assert transport.get_write_buffer_size() > 0
        transport.close()
        assert transport.is_closing()
        assert not transport.is_reading()
        got = await asyncio.to_thread(read_all, client)
        assert got == b"x" * 9_000_000 + b"end"
        await protocol.until(lambda: "connection_lost" in protocol.calls)
        assert protocol.calls == ["pause_writing", "resume_writing", "connection_lost"]
        transport.write(b"more")  # is dropped
        transport.close()

    assert not run(talk)


def read_all(sock):
    data = bytearray()
    while piece := sock.recv(1 << 20):
        data += piece
    return bytes(data)


def test_reading_can_be_paused():
    """Nothing is received until it is resumed, and then everything."""

    async def talk(client, transport, protocol):
        transport.pause_reading()
        await asyncio.to_thread(client.sendall, b"x" * 50_000)
        await asyncio.sleep(0.05)
        assert protocol.data == b""
        assert not transport.is_reading()
        transport.resume_reading()
        assert transport.is_reading()
        await protocol.until(lambda: len(protocol.data) == 50_000)
        transport.pause_reading()
        client.sendall(b"more")
        await asyncio.sleep(0.05)
        assert len(protocol.data) == 50_000

    assert not run(talk)


@pytest.mark.parametrize("keep", [False, True])
def test_the_end_of_the_input(keep):
    """The protocol decides whether the connection stays open for output."""

    async def talk(client, transport, protocol):
        client.shutdown(socket.SHUT_WR)
        await protocol.until(lambda: "eof_received" in protocol.calls)
        assert transport.is_closing() is not keep
        transport.write(b"answer")
        transport.close()
        assert await asyncio.to_thread(read_all, client) == (b"answer" if keep else b"")

    assert not run(talk, keep=keep)


def test_the_sending_side_is_shut_down_behind_the_output():
    """Input is received nevertheless."""

    async def talk(client, transport, protocol):
        transport.write(b"x" * 5_000_000)
        transport.write_eof()
        assert len(await asyncio.to_thread(read_all, client)) == 5_000_000
        client.sendall(b"late")
        await protocol.until(lambda: protocol.data == b"late")

    assert not run(talk)


def test_a_connection_that_is_reset_is_lost():
    """While output is pending, and while input is awaited."""

    async def talk(client, transport, protocol):
        transport.write(b"x" * 9_000_000)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        await protocol.until(lambda: "connection_lost" in protocol.calls)
        assert transport.is_closing()

    assert not run(talk)


def test_an_exception_of_the_protocol_ends_the_connection():
    """It is passed on, once."""

    async def talk(client, transport, protocol):
        client.sendall(b"x")
        await protocol.until(lambda: "connection_lost" in protocol.calls)
        assert await asyncio.to_thread(read_all, client) == b""

    (error,) = run(talk, fails=True)
    assert isinstance(error, KeyError)


class Sock(socket.socket):
    """A socket that takes ``room`` bytes; ``error`` is raised by the next call."""

    room = 0
    error = None

    def recv(self, *arguments):
        self.fail()
        return super().recv(*arguments)

    def send(self, data, flags=0):
        self.fail()
        taken = min(self.room, len(data))
        if not taken:
            raise BlockingIOError
        self.room -= taken
        return super().send(memoryview(data)[:taken], flags)

    def fail(self):
        error, self.error = self.error, None
        if error is not None:
            raise error


class Loop:
    """A loop that runs nothing by itself."""

    def __init__(self):
        self.soon, self.readers, self.writers = [], {}, {}
        self.add_reader, self.add_writer = self.readers.__setitem__, self.writers.__setitem__
        self.remove_reader, self.remove_writer = self.readers.pop, self.writers.pop

    def call_soon(self, call, *arguments):
        self.soon.append((call, arguments))

    def turn(self):
        calls, self.soon = self.soon, []
        for call, arguments in calls:
            call(*arguments)


class Ends:
    """A transport on a loop and a socket of the test."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname(), timeout=20)
            sock, _ = listener.accept()
        self.loop, self.protocol, self.reported = Loop(), Recorder(keep=True), []
        self.sock = Sock(fileno=sock.detach())
        self.transport = SocketTransport(
            self.loop,
            self.sock,
            self.protocol,
            self.reported.append,
            lambda: self.reported.append("stays"),
        )

    def writable(self, room):
        """Let the socket take so many bytes."""
        self.sock.room = room
        self.loop.writers[self.sock.fileno()]()


@pytest.fixture
def ends():
    ends = Ends()
    with ends.client, ends.sock:
        yield ends


def test_a_connection_that_outlives_its_first_turn_is_polled(ends):
    """That it stays is reported once, and its small answers are not delayed."""
    ends.transport.begin()
    assert not ends.loop.readers
    ends.loop.turn()
    assert list(ends.loop.readers) == [ends.sock.fileno()]
    assert ends.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    ends.transport.pause_reading()
    assert not ends.loop.readers
    ends.transport.resume_reading()
    assert ends.loop.readers
    assert ends.reported == ["stays"]


def test_a_connection_that_ends_in_its_first_turn_is_never_polled(ends):
    """It is closed in the next turn."""
    ends.transport.begin()
    ends.transport.close()
    ends.loop.turn()
    assert (ends.reported, ends.loop.readers) == ([], {})
    assert ends.protocol.calls == ["connection_lost"]
    assert ends.sock.fileno() == -1


def test_a_receive_that_fills_its_buffer_is_followed_by_a_larger_one(ends):
    """And that by a small one again, when it was not filled."""
    sizes = []
    ends.protocol.data_received = lambda data: sizes.append(len(data))
    ends.client.sendall(b"x" * 20_000)
    ends.transport.begin()
    ends.transport.receive()
    ends.client.sendall(b"x" * 20_000)
    ends.transport.receive()
    ends.transport.receive()
    assert sizes == [4096, 15_904, 4096, 15_904]
    ends.transport.receive()  # nothing has arrived
    assert not ends.transport.is_closing()


def test_the_protocol_is_paused_between_two_marks(ends):
    """Above 64 KiB of unsent output, until 16 KiB of it are left."""
    ends.transport.begin()
    ends.transport.write(b"x" * 65536)
    assert ends.protocol.calls == []
    ends.transport.write(b"x")
    ends.transport.write(b"x")
    assert ends.protocol.calls == ["pause_writing"]
    assert ends.transport.get_write_buffer_size() == 65538
    ends.writable(65538 - 16384 - 1)
    assert ends.protocol.calls == ["pause_writing"]
    ends.writable(1)
    assert ends.protocol.calls == ["pause_writing", "resume_writing"]
    ends.writable(16384)
    assert not ends.loop.writers
    assert ends.transport.get_write_buffer_size() == 0


def test_nothing_is_received_behind_a_close(ends):
    """While the output is still sent; the connection ends with it."""
    ends.transport.begin()
    ends.loop.turn()
    ends.transport.write(b"answer")
    ends.transport.close()
    assert not ends.loop.readers
    ends.transport.resume_reading()
    assert not ends.loop.readers
    ends.transport.write_eof()  # has no effect: it is closed anyway
    ends.writable(6)
    ends.loop.turn()
    assert ends.protocol.calls == ["connection_lost"]
    assert ends.client.recv(9) == b"answer"
    assert ends.client.recv(9) == b""


def test_an_idle_connection_is_closed_in_the_same_turn(ends):
    """Before another request can arrive; only once, and not with output that is unsent."""
    ends.transport.begin()
    ends.loop.turn()
    ends.transport.close_now()
    assert ends.client.recv(9) == b""
    assert ends.protocol.calls == ["connection_lost"]
    assert not ends.loop.readers
    ends.transport.close_now()
    ends.transport.close()
    ends.loop.turn()
    assert ends.protocol.calls == ["connection_lost"]


def test_an_abort_drops_what_is_unsent(ends):
    """The client gets a reset, so that the answer does not look complete; without output, an end."""
    ends.transport.begin()
    ends.transport.write(b"answer")
    ends.transport.abort()
    assert not ends.loop.writers
    ends.loop.turn()
    with pytest.raises(ConnectionResetError):
        ends.client.recv(9)


def test_an_oserror_of_a_signal_handler_is_no_error_of_the_connection(ends):
    """It has no number of the system: it is passed on, while receiving and while sending."""
    ends.transport.begin()
    ends.transport.write(b"answer")
    ends.sock.error = error = OSError("in a handler")
    with pytest.raises(OSError, match="in a handler"):
        ends.writable(6)
    ends.sock.error = error
    ends.transport.receive()
    assert ends.reported == [error]
    fresh = Ends()
    with fresh.client, fresh.sock:
        fresh.sock.error = error
        with pytest.raises(OSError, match="in a handler"):
            fresh.transport.write(b"answer")
        assert not fresh.transport.is_closing()
        fresh.sock.error = ConnectionResetError(104, "reset")
        fresh.transport.write(b"answer")
        assert fresh.transport.is_closing()
        assert fresh.transport.get_write_buffer_size() == 6


def test_what_a_transport_gives_away(ends):
    """The socket alone; it can end its output, and change its protocol."""
    transport = ends.transport
    assert transport.get_extra_info("socket") is ends.sock
    assert transport.get_extra_info("peername", 7) == 7
    assert transport.can_write_eof() is True
    transport.set_protocol("other")
    assert transport.get_protocol() == "other"
