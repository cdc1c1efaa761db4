"""preforkd with the interpreters of Debian testing: CPython 3.14 or newer, and 3.15."""

import os
from pathlib import Path

import pytest

from tests.newer.root import Root, missing
from tests.stages import PARALLEL
from tests.systemd.machine import unmade

OTHERS = ("test_tools.py", "core", "systemd", "newer", "bench", "soaking")
"""The tools' versions are the developers'; the policy's tests take long, and no version matters to it."""
SMOKE = ("tests/zygote", "tests/ipc", "tests/process/test_memory.py", "tests/process/test_life.py")


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """The root, made once."""
    if reason := missing():
        pytest.skip(reason)
    images = os.environ.get("PREFORKD_IMAGES")
    folder = Path(images) if images else tmp_path_factory.mktemp("testing")
    if reason := unmade("testing", folder):
        pytest.skip(reason)
    return Root(folder)


def test_unit_and_process_tests_pass(root):
    """With the suite's own interpreter."""
    ignored = (f"--ignore=tests/{name}" for name in OTHERS)
    root.test("python3", "tests", *ignored, PARALLEL, "--dist=worksteal")


def test_the_zygote_and_a_service_work_with_315(root):
    """The heap, the messages, and a service that starts, reloads and ends."""
    root.install("python3.15")
    root.test("python3.15", *SMOKE, PARALLEL)
