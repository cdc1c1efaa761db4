"""What process tests share: a service that is ended whatever happens."""

import pytest

from tests.process.service import Service


@pytest.fixture
def service(tmp_path):
    """A preforkd, not yet started."""
    service = Service(tmp_path)
    yield service
    service.close()
