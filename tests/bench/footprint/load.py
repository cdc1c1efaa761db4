"""Requests to a server: a mix of paths, over as many connections at a time as there are workers."""

from __future__ import annotations

import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable

MIXES = {
    "hello": [("/", 1)],
    "django_site": [
        ("/?n={n}", 3),
        ("/record?n={n}", 3),
        ("/group?n={n}", 1),
        ("/order?n={n}", 2),
        ("/admin/login/?n={n}", 1),
    ],
    "data": [("/record?n={n}", 4), ("/window?n={n}", 3), ("/mean?n={n}", 2), ("/groups?n={n}", 1)],
}
"""Paths of each application, and how often each is asked for."""

_PID = re.compile(rb"(?i)\r\nX-Pid: *(\d+)\r\n")


def paths(application: str, seed: int = 6) -> Callable[[], str]:
    """Return a function that returns the next path of the mix; the same ones each time."""
    choices = [path for path, weight in MIXES[application] for _ in range(weight)]
    chance = random.Random(seed)
    return lambda: chance.choice(choices).format(n=chance.randrange(1_000_000))


def ask(port: int, path: str) -> int:
    """Send one request; return the pid of the worker that answered with 200.

    Raises OSError, and AssertionError for any other answer.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=120) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")), f"{path}: {answer[:500]!r}"
    pid = _PID.search(answer)
    assert pid is not None, f"{path}: nobody says that it has answered: {answer[:500]!r}"
    return int(pid[1])


class Load:
    """Asks the servers on these ports, and counts who has answered."""

    def __init__(self, application: str, ports: list[int], at_a_time: int) -> None:
        self.answered: Counter[int] = Counter()
        self._ports = ports
        self._at_a_time = at_a_time
        self._next_path = paths(application)
        self._turn = 0
        self._lock = threading.Lock()
        self._errors: list[Exception] = []

    def send(self, count: int) -> None:
        """Send so many requests of the mix."""
        left = count

        def step() -> tuple[int, str] | None:
            nonlocal left
            with self._lock:
                if left == 0 or self._errors:
                    return None
                left -= 1
                self._turn += 1
                return self._ports[self._turn % len(self._ports)], self._next_path()

        self._in_parallel(step)

    def collect(self, workers: Callable[[], set[int]], expected: int) -> None:
        """Have garbage collected in each worker: ask until so many living ones have answered."""
        collected: set[int] = set()
        for _ in range(200):
            left = 2 * expected

            def step() -> tuple[int, str] | None:
                nonlocal left
                with self._lock:
                    if left == 0 or self._errors:
                        return None
                    left -= 1
                    self._turn += 1
                    return self._ports[self._turn % len(self._ports)], "/gc"

            before = Counter(self.answered)
            self._in_parallel(step)
            collected |= set(self.answered - before)
            collected &= workers()
            if len(collected) >= expected:
                return
        raise AssertionError(f"only {len(collected)} of {expected} workers have answered")

    def _in_parallel(self, step: Callable[[], tuple[int, str] | None]) -> None:
        def run() -> None:
            while (request := step()) is not None:
                try:
                    pid = ask(*request)
                except (OSError, AssertionError) as error:
                    self._errors.append(error)
                    return
                with self._lock:
                    self.answered[pid] += 1

        threads = [threading.Thread(target=run) for _ in range(self._at_a_time)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
