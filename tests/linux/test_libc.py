"""Calls of the C library."""

import errno

import pytest

from preforkd.linux.libc import LIBC, checked


def test_a_negative_result_is_an_error_of_the_system():
    """By errno; any other result is returned."""
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        checked(LIBC.close(-1))
    assert caught.value.errno == errno.EBADF
    assert [checked(0), checked(7)] == [0, 7]
