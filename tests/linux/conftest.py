"""Tests here share a parser of journal entries."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
