"""What process tests share: a service that is ended whatever happens."""

import pytest

from tests.process.service import Service


@pytest.fixture
def service(request, tmp_path):
    """A preforkd, not yet started; exceptions in its log that no mark ``logs`` names fail the test."""
    service = Service(tmp_path)
    yield service
    service.finish(request.node)
