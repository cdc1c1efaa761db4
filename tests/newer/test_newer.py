"""preforkd with the interpreters of Debian testing: CPython 3.14 or newer, and 3.15."""

import os
from pathlib import Path

import pytest

from tests.newer.root import Root, missing
from tests.stages import PARALLEL
from tests.systemd.machine import unmade

UNIT = "apps cli config control http ipc linux logs supervisor worker zygote"
"""Not the policy's tests, to which no version matters."""
PROCESS = "applications hooks life memory preload refork"
"""How a service loads, forks, serves, and ends: what depends on the interpreter."""
SMOKE = ("tests/zygote", "tests/ipc", "tests/process/test_memory.py")


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


def test_the_unit_tests_pass(root):
    """With the suite's own interpreter."""
    folders = (f"tests/{name}" for name in UNIT.split())
    marks = ("-m", "not process and not simulation")
    root.test("python3", *folders, *marks, PARALLEL, "--dist=worksteal")


def test_the_process_tests_pass(root):
    """With the suite's own interpreter, those that depend on it."""
    root.test("python3", *(f"tests/process/test_{name}.py" for name in PROCESS.split()), PARALLEL)


def test_the_zygote_and_a_service_work_with_315(root):
    """The heap, the messages, and a service that starts, reloads and ends."""
    root.install("python3.15")
    root.test("python3.15", *SMOKE, PARALLEL)
