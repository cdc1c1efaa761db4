"""Values that are kept out of the file: ``{credential: NAME}`` reads what systemd passes.

systemd.exec(5): LoadCredential=, SetCredentialEncrypted=, $CREDENTIALS_DIRECTORY
"""

from pathlib import Path

from preforkd.config.files import read_bounded
from preforkd.errors import did_you_mean

KEY = "credential"
_SIZE_LIMIT = 1 << 20
"""Bytes; systemd passes no larger ones."""


class Credentials:
    """The credentials of the service; ``directory`` None: nobody passes any.

    ``checking``: what cannot be read here may be readable in the service, and is no problem.
    """

    def __init__(self, directory: str | None, *, checking: bool = False) -> None:
        self._directory = Path(directory) if directory else None
        self._checking = checking

    def read(self, name: str) -> str | None:
        """Return a credential without its final newline; None if that cannot be known here.

        Raises ValueError that says what is wrong.
        """
        if not name or "/" in name or name.startswith("."):
            # Not shown: it may be the value.
            raise ValueError("this is not the name of a credential: write a file name without /")
        if self._directory is None:
            if self._checking:
                return None
            raise ValueError(
                f"there are no credentials: pass {name} by LoadCredential={name}:/path in the unit"
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
            raise ValueError(f"the credential {name} is no text") from None

    def _unreadable(self, name: str, error: OSError) -> str:
        assert self._directory is not None
        try:
            names = sorted(path.name for path in self._directory.iterdir())
        except OSError:
            names = []
        passed = did_you_mean(name, names) or f"passed: {', '.join(names) or 'none'}"
        return f"the credential {name} cannot be read: {error.strerror}; {passed}"
