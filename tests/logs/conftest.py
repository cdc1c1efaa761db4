"""The serving worker, which writes an access log, is a module beside the tests of the worker."""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "worker")]
