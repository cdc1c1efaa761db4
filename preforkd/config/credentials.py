"""Values that are not in the file: ``{credential: NAME}`` reads a credential that systemd passes.

systemd.exec(5): LoadCredential=, SetCredentialEncrypted=, $CREDENTIALS_DIRECTORY
"""

from pathlib import Path

from preforkd.config.files import read_bounded
from preforkd.errors import did_you_mean

KEY = "credential"
_SIZE_LIMIT = 1 << 20
"""Bytes; systemd passes no larger credentials."""


class Credentials:
    """The credentials of the service; ``directory`` None: none were passed.

    ``checking``: not run by the service, which may have credentials that this process has not.
    """

    def __init__(self, directory: str | None, *, checking: bool = False) -> None:
        self._directory = Path(directory) if directory else None
        self._checking = checking

    def read(self, name: str) -> str | None:
        """Return a credential without its final newline; None if it is unknown here (``checking``).

        Raises ValueError with a message for the administrator.
        """
        if not name or "/" in name or name.startswith("."):
            # Not shown: the secret itself may have been written in place of the name.
            raise ValueError("not the name of a credential: write a file name without /")
        if self._directory is None:
            if self._checking:
                return None
            raise ValueError(
                f"no credentials were passed: add LoadCredential={name}:/path to the unit"
            )
        try:
            data = read_bounded(str(self._directory / name), _SIZE_LIMIT + 1)
        except OSError as error:
            raise ValueError(self._unreadable(name, error)) from None
        if len(data) > _SIZE_LIMIT:
            raise ValueError(f"the credential {name} is larger than {_SIZE_LIMIT >> 20} MiB")
        try:
            return data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise ValueError(f"the credential {name} is not UTF-8 text") from None

    def _unreadable(self, name: str, error: OSError) -> str:
        assert self._directory is not None
        try:
            names = sorted(path.name for path in self._directory.iterdir())
        except OSError:
            names = []
        passed = did_you_mean(name, names) or f"passed: {', '.join(names) or 'none'}"
        return f"the credential {name} cannot be read: {error.strerror}; {passed}"
