"""What all tests share."""

from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in these folders, before ``-m`` selects."""
    for item in items:
        for name in ("process", "systemd"):
            if _HERE / name in item.path.parents:
                item.add_marker(name)
