"""Records as journal entries, and as lines on standard error."""

import os
from datetime import datetime, timedelta

from preforkd.logs.handlers import timestamp
from tests.logs.processes import bound_journal, entries, run

RECORDS = """
logs.configure("info", sys.argv[2])
logs.configure("info", sys.argv[2])
logger = logging.getLogger("preforkd.master")
logger.debug("below the level")
logger.info("first")
set_context(worker=3, generation=2)
logger.warning("two\\nlines", extra={"journal": {"OBJECT_PID": 7}})
logging.getLogger("app").warning("the application's")
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("failed")
"""


def test_records_on_standard_error():
    """Each record once, though configured twice: time, process, level; following lines are indented."""
    begun = datetime.now().astimezone()
    lines = run(RECORDS, "/nonexistent", "stderr").stderr.split("\n")
    assert lines[0].endswith(": first")
    when, name, _ = lines[0].split(" ", 2)
    assert name.startswith("preforkd[")
    assert begun - timedelta(seconds=1) < datetime.fromisoformat(when) < datetime.now().astimezone()
    assert lines[1].endswith("warning: worker 3 (generation 2): two")
    assert lines[2] == "\tlines"
    assert lines[3].endswith("the application's")
    assert "ZeroDivisionError" in "\n".join(lines)
    assert sum("first" in line for line in lines) == 1


def test_records_in_the_journal(tmp_path):
    """Message, priority, process and logger are fields; nothing goes to standard error."""
    with bound_journal(tmp_path / "socket") as sock:
        assert run(RECORDS, tmp_path / "socket", "journal").stderr == ""
        first, second, third, fourth = entries(sock, 4)
    assert first["MESSAGE"] == "first"
    assert first["PRIORITY"] == "6"
    assert first["SYSLOG_IDENTIFIER"] == "preforkd"
    assert "PREFORKD_WORKER" not in first
    assert second["MESSAGE"] == "worker 3 (generation 2): two\nlines"
    assert second["PREFORKD_WORKER"] == "3"
    assert second["OBJECT_PID"] == "7"
    assert third["LOGGER"] == "app"
    assert "ZeroDivisionError" in fourth["MESSAGE"]
    assert fourth["PRIORITY"] == "3"


def test_standard_error_replaces_a_journal_that_is_gone(tmp_path):
    """A record that the journal does not take is written with its priority."""
    path = tmp_path / "gone"
    path.write_text("")
    written = run(RECORDS, path, "journal").stderr
    assert "<6>first" in written
    assert "<4>\tlines" in written
    assert os.path.exists(path)


STUCK = """
logs.configure("info", "journal")
begun = time.monotonic()
for number in range(3000):
    logging.getLogger("preforkd").info("record %d", number)
print(time.monotonic() - begun)
"""


def test_a_stuck_journal_blocks_the_master_once(tmp_path):
    """Not at each record: the master must ping the watchdog. Further records go to standard error."""
    with bound_journal(tmp_path / "socket"):
        done = run(STUCK, tmp_path / "socket")
    # One timeout is a second; one for each record would be an hour.
    assert 0.9 < float(done.stdout) < 60
    assert "<6>record 2999" in done.stderr


UNSAFE = """
logs.configure("info", sys.argv[2])
logging.getLogger("preforkd").info("\\x1b]0;title\\x07\\npreforkd[1]: generation 99 serves")
"""


def test_control_characters_are_escaped_in_records(tmp_path):
    """No terminal obeys them, and a second line does not look like a record of its own."""
    first, second = run(UNSAFE, "/nonexistent", "stderr").stderr.splitlines()
    assert first.endswith(r": \x1b]0;title\x07")
    assert second == "\tpreforkd[1]: generation 99 serves"
    with bound_journal(tmp_path / "socket") as sock:
        run(UNSAFE, tmp_path / "socket", "journal")
        assert entries(sock, 1)[0]["MESSAGE"].startswith(r"\x1b]0;title\x07")


FULL = """
error = handlers.StandardError(1.0)
file = os.dup(2)
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
assert [error.write("lost\\n") for _ in range(3)] == [False] * 3
os.dup2(file, 2)
assert error.write("kept\\n")
"""


def test_lines_that_cannot_be_written_are_counted():
    """As on a full disk: the next line that is written begins with their number."""
    assert run(FULL).stderr == "(3 lines were lost here: they could not be written)\nkept\n"


def test_a_timestamp_can_be_parsed():
    """Local time with milliseconds and the offset."""
    for seconds in (0.0, 1_790_000_000.25, 1_800_000_000.999):
        assert abs(datetime.fromisoformat(timestamp(seconds)).timestamp() - seconds) < 0.0011
