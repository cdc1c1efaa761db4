"""Limits of descriptors, in a process of its own."""

import subprocess
import sys

CODE = """
import resource
from preforkd.linux.rlimits import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300))
print(raise_descriptor_limit(200), raise_descriptor_limit(50), raise_descriptor_limit(9999))
"""


def test_the_soft_limit_rises_to_what_is_wanted_or_allowed():
    """Never beyond the hard limit, never down."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.stdout == "200 200 300\n", done.stderr
