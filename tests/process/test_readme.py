"""The table of faults: each row has its test."""

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent


def test_each_row_names_tests_that_exist():
    """A test that is renamed or removed is renamed or removed in README.md, too."""
    rows = [
        line.strip("| \n").split(" | ")
        for line in (HERE / "README.md").read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| Fault |")
    ]
    assert len(rows) > 50
    for cells in rows:
        assert len(cells) == 4, cells
        for group in cells[3].split("; "):
            file, _, names = group.partition(": ")
            folder, _, name = file.rpartition("/")
            text = (HERE.parent / (folder or "process") / f"test_{name}.py").read_text()
            for name in names.split(", "):
                function = re.escape(name.partition("[")[0])
                assert re.search(rf"^def test_{function}\(", text, re.MULTILINE), group
