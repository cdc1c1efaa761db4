"""The serving worker is a module beside the tests; the attack table is one of the parser's."""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "http")]
