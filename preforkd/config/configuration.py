"""The result of reading the configuration: the settings, and where each was written."""

from collections.abc import Mapping

from msgspec import Struct, field

from preforkd.config.settings import Settings
from preforkd.errors import Place

DEFAULT_PATH = "/etc/preforkd.yaml"


class Configuration(Struct, frozen=True):
    """Settings, the file that they were read from (None: there was none), and the place of each that was set."""

    settings: Settings
    origins: Mapping[str, Place] = field(default_factory=dict)
    path: str | None = None
    secrets: frozenset[str] = frozenset()
    """Dotted names of settings whose values came from credentials and must not be shown."""
    secret_texts: tuple[str, ...] = ()
    """These values, to be masked in messages."""
