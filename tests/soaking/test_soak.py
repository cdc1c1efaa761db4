"""The soak, for a minute, or for ten at night."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

TREE = Path(__file__).resolve().parents[2]


def test_a_soak_explains_everything():
    """No request is lost but by a fault done to its worker, nothing leaks, the log tells of each fault."""
    minutes = 10 if os.environ.get("PREFORKD_NIGHTLY") else 1
    command = [sys.executable, "-m", "tests.soaking", str(minutes), "--seed", "7"]
    done = subprocess.run(
        command, cwd=TREE, capture_output=True, text=True, timeout=60 * minutes + 240
    )
    assert done.returncode == 0, done.stdout + done.stderr
