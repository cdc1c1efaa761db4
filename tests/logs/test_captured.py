"""What an application prints, as journal entries."""

import logging

from preforkd.logs.captured import EntryLines
from tests.logs.processes import bound_journal, entries, run
from tests.logs.test_journal import parse


def test_text_is_split_into_lines():
    """A line may arrive in pieces, may have a priority, and is cut at the limit; empty ones are dropped."""
    submitted = []
    lines = EntryLines(logging.INFO, lambda: {"PREFORKD_WORKER": 3}, submitted.append)
    lines.write("one\n\n<3>t")
    lines.write("wo\nunfin")
    assert [parse(entry)["MESSAGE"] for entry in submitted] == ["one", "two"]
    assert [parse(entry)["PRIORITY"] for entry in submitted] == ["6", "3"]
    lines.write("ished")
    lines.flush()
    lines.flush()
    assert parse(submitted[2])["MESSAGE"] == "unfinished"
    assert parse(submitted[2])["PREFORKD_WORKER"] == "3"
    lines.write("x" * (EntryLines.LIMIT + 1))
    assert len(submitted) == 4
    assert parse(submitted[3])["MESSAGE"] == "x" * EntryLines.LIMIT
    lines.write("\n")
    assert parse(submitted[4])["MESSAGE"] == "x"


STREAMS = """
logs.configure("info", "journal")
set_context(generation=2)
logs.capture_output()
handler = logging.StreamHandler()
set_context(worker=3)
handler.emit(logging.makeLogRecord({"msg": "by a handler of the application"}))
sys.stdout.reconfigure(line_buffering=True)
sys.stdout.buffer.write("bytesä\\n".encode())
print("<2>with a priority", file=sys.stderr)
print()
print(sys.stdout.encoding, sys.stderr.errors, sys.stderr.isatty(), sys.stderr.fileno())
print("\\x1b[31mred\\x1b[0m \\x1b[2J")
print("half", end="", flush=True)
"""


def test_captured_streams_behave_as_streams(tmp_path):
    """A handler created in the zygote logs for the worker; bytes, options and attributes work."""
    with bound_journal(tmp_path / "socket") as sock:
        assert run(STREAMS, tmp_path / "socket").stderr == ""
        received = entries(sock, 6)
    assert [(entry["MESSAGE"], entry["PRIORITY"]) for entry in received] == [
        ("by a handler of the application", "4"),
        ("bytesä", "6"),
        ("with a priority", "2"),
        ("utf-8 backslashreplace False 2", "6"),
        (r"red \x1b[2J", "6"),
        ("half", "6"),
    ]
    assert {entry["PREFORKD_WORKER"] for entry in received} == {"3"}


def test_nothing_is_captured_where_records_go_to_standard_error():
    """The streams stay what they are."""
    script = "before = sys.stdout\nlogs.configure('info', 'stderr')\nlogs.capture_output()\n"
    assert run(script + "print(sys.stdout is before)").stdout == "True\n"
