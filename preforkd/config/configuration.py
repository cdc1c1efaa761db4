"""What was read of the configuration: the settings, and where each was written."""

from collections.abc import Mapping

from msgspec import Struct, field

from preforkd.config.settings import Settings
from preforkd.errors import Place

DEFAULT_PATH = "/etc/preforkd.yaml"


class Configuration(Struct, frozen=True):
    """Settings, the file they come from (None: none was there), and the place of each written one."""

    settings: Settings
    origins: Mapping[str, Place] = field(default_factory=dict)
    path: str | None = None
    secrets: frozenset[str] = frozenset()
    """Dotted names of values that came from credentials, not to be shown."""
    secret_texts: tuple[str, ...] = ()
    """These values, as they were read."""
