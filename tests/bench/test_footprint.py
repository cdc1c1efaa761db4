"""The arithmetic behind the benchmark's tables, and that a table replaces the one before."""

import json
import os

import pytest

from tests.bench.footprint import load, processes, report

MB = 1_000_000


def process(worker, pss, uss, anonymous=0, rss=0):
    sizes = {"pss": pss * MB, "uss": uss * MB, "anonymous": anonymous * MB, "rss": rss * MB}
    return {"worker": worker, "title": "a title", **sizes}


def record(server, workers, processes):
    return {
        "application": "django_site",
        "server": server,
        "workers": workers,
        "stages": {"gc": processes},
        "versions": {"python": "3.13.5", "gunicorn": "27"},
    }


def test_a_total_is_of_all_processes_and_private_is_of_workers():
    """The master counts in the total, and not in the mean of what is private."""
    pool = [process(False, 20, 10), process(True, 30, 4), process(True, 32, 6)]
    numbers = report.figures(record("preforkd", 2, pool))["gc"]
    assert (numbers.total, numbers.worker, numbers.worst) == (82, 5, 6)


def test_unrelated_processes_are_multiplied_but_for_files():
    """Two measured workers of 100 MB beside 12 MB of files make 8 x 100 + 12; masters do not count."""
    pair = [process(True, 0, 0, 100, 112), process(True, 0, 0, 100, 112), process(False, 50, 50)]
    numbers = report.figures(record(report.UNRELATED, 8, pair))["gc"]
    assert (numbers.total, numbers.worker) == (812, 100)


def test_the_section_is_written_again_in_its_place(tmp_path):
    """What stands around the section stays; what stood in it goes."""
    folder = tmp_path / "results" / "trixie"
    folder.mkdir(parents=True)
    pool = [process(True, 30, 4)] * 16
    (folder / "x.json").write_text(json.dumps(record("preforkd", 16, pool)))
    for number, title in enumerate(("hello, 8 workers, other, fast", "speed, hello")):
        skip = {"title": title, "skipped": "it is not installed"}
        (folder / f"{number}.json").write_text(json.dumps(skip))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for _ in range(2):
        report.write(readme, folder.parent)
        text = readme.read_text()
        assert text.startswith("before\n" + report.BEGIN)
        assert text.endswith(report.END + "\nafter\n")
        assert "old" not in text
        assert "| preforkd | 4.0 | 480 |" in text
        assert text.count("not measured") == 1
        assert "- other, fast: not measured: it is not installed\n" in text


def test_the_memory_of_this_process_is_in_proportion():
    """Private is a part of PSS, PSS a part of RSS; 32 MB that are written to are private."""
    before = processes.memory_of(os.getpid())
    block = bytearray(os.urandom(1)) * (32 << 20)
    after = processes.memory_of(os.getpid())
    assert 0 < after.uss <= after.pss <= after.rss
    assert after.uss - before.uss > 30 << 20, len(block)


@pytest.mark.parametrize("application", list(load.MIXES))
def test_the_mix_is_the_same_each_time(application):
    """Two servers get the same requests in the same order, and each path of the mix."""
    first, second = load.paths(application), load.paths(application)
    sent = [first() for _ in range(300)]
    assert sent == [second() for _ in range(300)]
    assert {path.partition("?")[0] for path in sent} == {
        path.partition("?")[0] for path, _ in load.MIXES[application]
    }
