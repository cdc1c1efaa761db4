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
        transport.resume_reading()
        await protocol.until(lambda: len(protocol.data) == 50_000)

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
