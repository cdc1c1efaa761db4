"""A small Varlink client for preforkctl: one call, one answer, no event loop."""

import contextlib
import json
import os
import select
import socket
from typing import Any

from preforkd.control.permissions import peer_of
from preforkd.errors import Blame, ExitStatus, PreforkdError

_STATUS_BY_BLAME = {
    "stopping": ExitStatus.NOT_RUNNING,
    **{blame.value: blame.exit_status for blame in Blame},
}


class NotRunningError(PreforkdError):
    """No master listens on the control socket."""

    exit_status = ExitStatus.NOT_RUNNING


class NotAllowedError(PreforkdError):
    """The master, or the file system, does not let this user do that."""

    exit_status = ExitStatus.NOT_ALLOWED


class ReloadFailedError(PreforkdError):
    """The reload or the refork failed; the exit status shows what has to be fixed."""

    def __init__(self, blame: str, reason: str, detail: str, hint: str) -> None:
        super().__init__(reason, detail=detail, hint=hint)
        self.exit_status = _STATUS_BY_BLAME.get(blame, ExitStatus.INTERNAL)


class Client:
    """A connection to a master's control socket."""

    def __init__(self, path: str) -> None:
        """Connect. Raises NotRunningError and NotAllowedError."""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.connect(path)
        except PermissionError as error:
            self._sock.close()
            raise NotAllowedError(
                f"{path}: {error.strerror}",
                hint="control.mode and control.group of the service determine which users may connect",
            ) from error
        except OSError as error:
            self._sock.close()
            raise NotRunningError(
                f"no preforkd listens on {path}: {error.strerror}",
                hint="start it, or name its control socket by --socket",
            ) from error

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer's parameters. Raises PreforkdError for an error or no answer."""
        request = {"method": f"io.preforkd.Manager.{method}", "parameters": parameters}
        answer = json.loads(self._exchange(json.dumps(request).encode() + b"\0"))
        error, values = answer.get("error"), answer.get("parameters", {})
        if error is None:
            return dict(values)
        if error.endswith((".ReloadFailed", ".ReforkFailed")):
            raise ReloadFailedError(
                values["blame"], values["reason"], values["detail"], values["hint"]
            )
        if error.endswith(".NotAllowed"):
            raise NotAllowedError(values["reason"])
        raise PreforkdError(f"the master answers {error} {values}")

    def _exchange(self, request: bytes) -> bytes:
        gone = NotRunningError("the master exited before it answered")
        answer = bytearray()
        try:
            self._sock.sendall(request)
            while not answer.endswith(b"\0"):
                data = self._sock.recv(65536)
                if not data:
                    raise gone
                answer += data
        except (BrokenPipeError, ConnectionResetError) as error:
            raise gone from error
        return bytes(answer[:-1])

    def wait_for_end(self) -> None:
        """Return when the master has exited.

        The end of the connection is not enough: the master disconnects idle clients after a minute, and a stop
        may take longer. It is used only if the process is in another pid namespace.
        """
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(peer_of(self._sock).pid)
            try:
                select.select([pidfd], [], [])
            finally:
                os.close(pidfd)
            return
        with contextlib.suppress(ConnectionResetError):
            while self._sock.recv(65536):
                pass

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()
