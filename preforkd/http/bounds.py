"""What limits a request: the bounds of its parts, the memory of all bodies, and the error of a refusal."""

import math
import threading
from dataclasses import dataclass, field


class RequestError(Exception):
    """A request that is refused: the status to answer and the reason; the connection ends.

    ``headers``: names and values that the answer has besides those of every refusal.
    """

    def __init__(self, status: str, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers


class Budget:
    """The bytes that the bodies of all requests of a worker may use, in memory and in files."""

    def __init__(self, memory: float = 64 << 20, files: float = math.inf) -> None:
        self._left = {"memory": memory, "files": files}
        self._lock = threading.Lock()

    def take(self, place: str, size: int) -> bool:
        """Reserve bytes in ``memory`` or ``files``; return False, and reserve none, if too few are left."""
        with self._lock:
            if size > self._left[place]:
                return False
            self._left[place] -= size
            return True

    def give_back(self, place: str, size: int) -> None:
        """Release reserved bytes; may be called in any thread."""
        with self._lock:
            self._left[place] += size


@dataclass(frozen=True, slots=True)
class Bounds:
    """The upper bounds of a request, in bytes except the number of fields."""

    max_line: int = 8 << 10
    max_field: int = 16 << 10
    max_header: int = 32 << 10
    max_fields: int = 100
    max_body: int = 1 << 30
    spool: int = 256 << 10
    """A body above this is spooled to a file."""
    budget: Budget = field(default_factory=Budget)
    """Shared by all listeners of a worker."""
