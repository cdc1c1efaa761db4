"""What tests of the zygote share: the interpreters that they run in."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from interpreters import suitable


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for ``python`` with each of them; without any it is skipped."""
    if "python" in metafunc.fixturenames:
        skip = pytest.mark.skip(reason="no CPython 3.12 or 3.13 is here")
        metafunc.parametrize("python", suitable() or [pytest.param("", marks=skip)])
