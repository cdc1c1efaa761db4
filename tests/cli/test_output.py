"""Output that is not read to its end."""

import subprocess
import sys


def test_a_closed_pipe_is_no_error():
    """`preforkd config | head -1` ends without a traceback."""
    script = 'set -o pipefail; "$0" -m preforkd config | head -c 10'
    for _ in range(3):
        done = subprocess.run(
            ["bash", "-c", script, sys.executable], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "app.target"
        assert done.stderr == ""
