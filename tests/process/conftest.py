"""What process tests share: a service that is ended whatever happens."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from service import Service


@pytest.fixture
def service(tmp_path):
    """A preforkd, not yet started."""
    service = Service(tmp_path)
    yield service
    service.close()
