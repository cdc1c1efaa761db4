"""What all tests share."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples each time, on a machine of any speed.
settings.register_profile(
    "preforkd", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("preforkd")
_HERE = Path(__file__).resolve().parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in these folders, before ``-m`` selects."""
    for item in items:
        for name in ("process", "systemd"):
            if _HERE / name in item.path.parents:
                item.add_marker(name)
