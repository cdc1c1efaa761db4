"""A client that counts every answer that is not whole: for tests, and for a person at a terminal.

``keep_alive`` clients send request after request on one connection, ``fresh`` ones make a connection
for each; together they send ``rate`` requests a second. The application must answer
``GET /?id=N`` with a body that contains ``id=N`` and nothing that was cut off.

::

    python tests/process/load.py 127.0.0.1:8080 --seconds 10 --rate 300
"""

from __future__ import annotations

import argparse
import itertools
import select
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

PATIENCE = 30.0
SLOW = 1.0


class Bad(Exception):
    """An answer that is not whole: the category, and the particulars."""

    def __init__(self, category: str, detail: str = "") -> None:
        super().__init__(f"{category} {detail}")
        self.category = category
        self.detail = detail


@dataclass
class Result:
    """Counts by category, what was bad and when (seconds since the start), and latencies (seconds)."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[float, str, str]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    slow: list[tuple[float, float, str]] = field(default_factory=list)
    """When, how long, and what: answers that took more than `SLOW` seconds."""

    @property
    def ok(self) -> int:
        return self.counts["ok"]

    @property
    def lost(self) -> int:
        return sum(self.counts.values()) - self.ok

    def __str__(self) -> str:
        times = sorted(self.latencies) or [0.0]
        p99 = times[int(len(times) * 0.99)] * 1000
        text = ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))
        return f"{text}; p99 {p99:.1f} ms, max {times[-1] * 1000:.1f} ms"


class Client(threading.Thread):
    def __init__(self, load: Load, *, keep: bool) -> None:
        super().__init__(daemon=True)
        self._load = load
        self._keep = keep
        self._sock: socket.socket | None = None

    def run(self) -> None:
        while (number := self._load.turn()) is not None:
            begun = time.monotonic()
            try:
                self._request(number)
            except Bad as bad:
                self._load.count(bad.category, bad.detail)
                self._close()
            else:
                how = f"request {number}, {'kept' if self._keep else 'new'} connection"
                self._load.count("ok", how, latency=time.monotonic() - begun)
        self._close()

    def _close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _connect(self) -> socket.socket:
        # A kept connection that the server has closed before this request was sent is nobody's loss.
        if self._sock is not None and self._closed_by_server(self._sock):
            self._close()
        if self._sock is None:
            address = self._load.address
            family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
            self._sock = socket.socket(family, socket.SOCK_STREAM)
            self._sock.settimeout(PATIENCE)
            try:
                self._sock.connect(address)
            except ConnectionRefusedError as error:
                raise Bad("refused", str(error)) from error
            except OSError as error:
                raise Bad("unconnected", str(error)) from error
        return self._sock

    def _closed_by_server(self, sock: socket.socket) -> bool:
        return bool(select.select([sock], [], [], 0)[0])  # the end, or what nobody asked for

    def _request(self, number: int) -> None:
        before = self._sock
        sock = self._connect()
        if self._load.stream:
            self._stream(sock)
            return
        close = "" if self._keep else "Connection: close\r\n"
        request = f"GET {self._load.path}?id={number} HTTP/1.1\r\nHost: load\r\n{close}\r\n"
        try:
            try:
                sock.sendall(request.encode())
            except BrokenPipeError:
                if sock is not before:
                    raise
                # Kept, and closed by the server since it was looked at: nothing of this one was sent.
                self._close()
                sock = self._connect()
                sock.sendall(request.encode())
            head, body = self._answer(sock)
        except TimeoutError as error:
            raise Bad("timeout") from error
        except OSError as error:
            raise Bad("reset", str(error)) from error
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Bad("wrong", head.split(b"\r\n")[0].decode())
        if f"id={number}".encode() not in body:
            raise Bad("wrong", body[:80].decode(errors="replace"))
        if b"connection: close" in head.lower():
            self._close()

    def _stream(self, sock: socket.socket) -> None:
        data = b""
        try:
            while piece := sock.recv(4096):
                data += piece
        except OSError as error:
            raise Bad("reset", str(error)) from error
        if not data.endswith(b"\n"):
            raise Bad("cut" if data else "empty")
        self._close()

    def _answer(self, sock: socket.socket) -> tuple[bytes, bytes]:
        data = self._receive(sock, b"", lambda data: b"\r\n\r\n" in data)
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        if not lengths:
            raise Bad("wrong", "no Content-Length")
        return head, self._receive(sock, body, lambda body: len(body) >= lengths[0], partial=True)

    def _receive(self, sock, data, enough, *, partial=False):  # type: ignore[no-untyped-def]
        while not enough(data):
            piece = sock.recv(65536)
            if not piece:
                raise Bad("cut" if data or partial else "empty", "kept" if self._keep else "new")
            data += piece
        return data


class Load:
    """Load on an address for as long as the context lasts."""

    def __init__(
        self,
        address: tuple[str, int] | str,
        *,
        keep_alive: int = 4,
        fresh: int = 4,
        rate: float = 300.0,
        path: str = "/",
        stream: bool = False,
    ) -> None:
        self.address = address
        self.path = path
        self.stream = stream
        self.result = Result()
        self._interval = 1.0 / rate
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._begun = self._next = time.monotonic()
        kinds = [True] * keep_alive + [False] * fresh
        self._clients = [Client(self, keep=keep) for keep in kinds]
        self._reached = threading.Condition()

    def __enter__(self) -> Load:
        self._begun = self._next = time.monotonic()
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for client in self._clients:
            client.join()

    def turn(self) -> int | None:
        """Wait for the next request's time; None when the load is over."""
        with self._lock:
            number = next(self._numbers)
            due = self._next = max(self._next + self._interval, time.monotonic() - 0.1)
        if self._stopped.wait(max(0.0, due - time.monotonic())):
            return None
        return number

    def count(self, category: str, detail: str = "", latency: float | None = None) -> None:
        with self._reached:
            self.result.counts[category] += 1
            if latency is not None:
                self.result.latencies.append(latency)
                if latency > SLOW:
                    self.result.slow.append((time.monotonic() - self._begun, latency, detail))
            if category != "ok":
                self.result.bad.append((time.monotonic() - self._begun, category, detail))
            self._reached.notify_all()

    def wait_for(self, more: int, timeout: float = 60.0) -> None:
        """Return when so many more requests have been answered."""
        with self._reached:
            goal = self.result.ok + more
            if not self._reached.wait_for(lambda: self.result.ok >= goal, timeout):
                raise AssertionError(f"no {more} answers in {timeout} s: {self.result}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address", help="HOST:PORT or /path")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--keep-alive", type=int, default=4)
    parser.add_argument("--fresh", type=int, default=4)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument(
        "--until-closed", action="store_true", help="until standard input is closed"
    )
    options = parser.parse_args()
    host, _, port = options.address.rpartition(":")
    address = options.address if options.address.startswith("/") else (host, int(port))
    load = Load(
        address,
        keep_alive=options.keep_alive,
        fresh=options.fresh,
        rate=options.rate,
        stream=options.stream,
    )
    with load:
        if options.until_closed:
            sys.stdin.read()
        else:
            time.sleep(options.seconds)
    print(load.result)
    for when, category, detail in load.result.bad[:20]:
        print(f"  {when:7.3f} s  {category}  {detail}")
    for when, latency, detail in load.result.slow[:20]:
        print(f"  {when:7.3f} s  took {latency:.3f} s  {detail}")


if __name__ == "__main__":
    main()
