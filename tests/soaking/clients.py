"""Clients of the soak: each request ends in a record, whatever becomes of it."""

import http.client
import itertools
import random
import select
import socket
import threading
import time
from dataclasses import dataclass

PATIENCE = 40.0


@dataclass(slots=True)
class Record:
    """One request: by which client, on which local port, and how it ended."""

    number: int
    kind: str
    port: int
    sent: float
    ended: float = 0.0
    outcome: str = ""
    """``ok``, ``answered N`` (a status), or what happened to the connection."""
    path: str = "/"
    reused: bool = False


class Clients:
    """Load from all kinds of clients for as long as the context lasts; ``records`` has every request."""

    def __init__(self, address: tuple[str, int], *, rate: float, seed: int) -> None:
        self.address = address
        self.records: list[Record] = []
        self.unanswered = 0
        """Requests that were never sent: a connection could not be made."""
        self._numbers = itertools.count(1)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._next = time.monotonic()
        self._interval = 1.0 / rate
        kinds = [self._keep] * 8 + [self._fresh] * 8 + [self._slow] * 3 + [self._large, self._rude]
        self._threads = [
            threading.Thread(target=self._run, args=(kind, random.Random(seed * 100 + index)))
            for index, kind in enumerate(kinds)
        ]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def fault(self, how: str) -> Record:
        """Send a request that is a fault; return how it ended."""
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        return self._exchange(connection, "fault", f"/{how}")

    # --- one request -----------------------------------------------------------------------------

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        kind: str,
        path: str = "/",
        body: bytes | None = None,
        *,
        keep: bool = False,
    ) -> Record:
        number = next(self._numbers)
        record = Record(number, kind, 0, time.monotonic(), path=path)
        record.reused = connection.sock is not None
        try:
            if connection.sock is None:
                connection.connect()
            record.port = connection.sock.getsockname()[1]
            headers = {} if keep else {"Connection": "close"}
            method = "GET" if body is None else "POST"
            connection.request(method, f"{path}?id={number}", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                record.outcome = f"answered {answer.status}"
            elif f"id={number} ".encode() not in text or (
                body is not None and f"length={len(body)}\n".encode() not in text
            ):
                record.outcome = f"wrong: {text[:60]!r}"
            else:
                record.outcome = "ok"
            if not keep or answer.will_close:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            record.outcome = type(error).__name__
            connection.close()
        record.ended = time.monotonic()
        self.records.append(record)
        return record

    # --- kinds -----------------------------------------------------------------------------------

    def _run(self, kind, dice: random.Random) -> None:
        kind(dice)

    def _turn(self) -> bool:
        with self._lock:
            due = self._next = max(self._next + self._interval, time.monotonic() - 0.1)
        return not self._over.wait(max(0.0, due - time.monotonic()))

    def _keep(self, dice: random.Random) -> None:
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        while self._turn():
            # What the server has closed before this request was sent is nobody's loss.
            if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
                connection.close()
            self._exchange(connection, "kept", self._path(dice), keep=True)
        connection.close()

    def _fresh(self, dice: random.Random) -> None:
        while self._turn():
            connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
            self._exchange(connection, "new", self._path(dice))

    def _path(self, dice: random.Random) -> str:
        return "/slow" if dice.random() < 0.02 else "/"

    def _slow(self, dice: random.Random) -> None:
        """Send a request byte by byte, over some seconds."""
        while not self._over.wait(dice.uniform(0, 1)):
            number = next(self._numbers)
            record = Record(number, "slow", 0, time.monotonic())
            request = f"GET /?id={number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            data = b""
            try:
                with socket.create_connection(self.address, timeout=PATIENCE) as sock:
                    record.port = sock.getsockname()[1]
                    pause = dice.uniform(0, 3) / len(request)
                    for index in range(len(request)):
                        sock.sendall(request[index : index + 1])
                        time.sleep(pause)
                    while piece := sock.recv(65536):
                        data += piece
                whole = data.startswith(b"HTTP/1.1 200 ") and f"id={number} ".encode() in data
                record.outcome = "ok" if whole else f"wrong: {data[:60]!r}" if data else "cut"
            except OSError as error:
                record.outcome = type(error).__name__
            record.ended = time.monotonic()
            self.records.append(record)

    def _large(self, dice: random.Random) -> None:
        """Send a body that is spooled to a file."""
        while not self._over.wait(dice.uniform(0, 1)):
            connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
            self._exchange(connection, "large", "/", bytes(dice.randint(10_000, 600_000)))

    def _rude(self, dice: random.Random) -> None:
        """Leave in the middle, with and without a reset: nobody waits for these answers."""
        linger = bytes([1, 0, 0, 0, 0, 0, 0, 0])
        while not self._over.wait(dice.uniform(0, 0.5)):
            try:
                with socket.create_connection(self.address, timeout=PATIENCE) as sock:
                    sock.sendall(
                        b"POST /?id=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n"[
                            : dice.randint(1, 70)
                        ]
                    )
                    sock.sendall(bytes(dice.randint(0, 80_000)))
                    time.sleep(dice.uniform(0, 0.2))
                    if dice.random() < 0.5:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            except OSError:
                pass
