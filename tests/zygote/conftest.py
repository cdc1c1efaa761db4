"""What tests of the zygote share: the interpreters that they run in."""

import pytest

from tests.zygote.interpreters import suitable


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for ``python`` with each of them; without any it is skipped."""
    if "python" in metafunc.fixturenames:
        skip = pytest.mark.skip(reason="no CPython 3.12 to 3.15 is here")
        metafunc.parametrize("python", suitable() or [pytest.param("", marks=skip)])
