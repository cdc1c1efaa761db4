"""Machines for tests that need a real systemd."""

import os
from pathlib import Path

import pytest

from tests.systemd.machine import Image, Machine, missing, unmade


@pytest.fixture(scope="session", params=["bookworm", "trixie"])
def image(request, tmp_path_factory):
    """An image with the package, made once for all tests."""
    if reason := missing():
        pytest.skip(reason)
    images = os.environ.get("PREFORKD_IMAGES")
    folder = Path(images) if images else tmp_path_factory.mktemp(request.param)
    if reason := unmade(request.param, folder):
        pytest.skip(reason)
    return Image(request.param, folder)


@pytest.fixture
def machine(image, tmp_path):
    """A machine that has just booted."""
    machine = Machine(image, tmp_path)
    yield machine
    machine.stop()
