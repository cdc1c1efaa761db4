"""Where records go, in a process of its own: logging is global."""

import contextlib
import os
import socket
import subprocess
import sys

import pytest
from test_journal import parse

CODE = """
import logging, sys
from preforkd.linux import journal, logs
if len(sys.argv) > 2:
    logs.ADDRESS = sys.argv[2]
    logs.Journal = lambda wait=True: journal.Journal(sys.argv[2], wait=wait)
logs.configure("info", sys.argv[1])
logs.configure("info", sys.argv[1])
logger = logging.getLogger("preforkd.master")
logger.debug("not seen")
logger.info("first")
logs.set_context(worker=3, generation=2)
logger.warning("two\\nlines", extra={"journal": {"OBJECT_PID": 7}})
logging.getLogger("app").warning("the application's")
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("failed")
logs.capture_output()
print("printed", "twice", file=sys.stderr)
print("half", end="", flush=True)
"""


def run(*arguments):
    """Return what a process writes to standard error."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True
    )
    return done.stderr


def test_lines_on_standard_error():
    """One record each, with who speaks; the application's own too; once, though configured twice."""
    lines = run("stderr").split("\n")
    assert lines[0].endswith(": first")
    assert lines[0].startswith("preforkd[")
    assert lines[1].endswith("warning: worker 3 (generation 2): two")
    assert lines[2] == "lines"
    assert lines[3].endswith("the application's")
    assert "ZeroDivisionError" in "\n".join(lines)
    assert sum("first" in line for line in lines) == 1


def test_native_fields_in_the_journal(tmp_path):
    """Message, priority, who and where from are fields; nothing goes to standard error."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(5)
        assert run("journal", str(tmp_path / "socket")) == ""
        first, second, third, fourth, fifth, sixth = (parse(sock.recv(65536)) for _ in range(6))
    assert first["MESSAGE"] == "first"
    assert first["PRIORITY"] == "6"
    assert first["SYSLOG_IDENTIFIER"] == "preforkd"
    assert second["MESSAGE"] == "worker 3 (generation 2): two\nlines"
    assert second["PREFORKD_WORKER"] == "3"
    assert second["OBJECT_PID"] == "7"
    assert third["LOGGER"] == "app"
    assert "ZeroDivisionError" in fourth["MESSAGE"]
    assert fourth["PRIORITY"] == "3"
    assert (fifth["MESSAGE"], fifth["PRIORITY"]) == ("printed twice", "4")
    assert (sixth["MESSAGE"], sixth["PRIORITY"]) == ("half", "6")
    assert fifth["PREFORKD_WORKER"] == "3"


def test_a_journal_that_is_gone_is_replaced_by_standard_error(tmp_path):
    """What the journal does not take is not lost."""
    path = tmp_path / "gone"
    path.write_text("")
    assert "<6>first" in run("journal", str(path))
    assert os.path.exists(path)


CONFIGURES = """
import logging.config, sys
from preforkd.linux import journal, logs
logs.ADDRESS = sys.argv[1]
logs.Journal = lambda wait=True: journal.Journal(sys.argv[1], wait=wait)
ours, other = logging.getLogger("preforkd.worker"), logging.getLogger("preforkd_like")
logs.configure("info", sys.argv[2])
logging.config.dictConfig({"version": 1})
ours.info("heard in the zygote")
logs.hurry()
logging.config.dictConfig({"version": 1})
ours.info("heard in the worker")
assert other.disabled
"""


@pytest.mark.parametrize("target", ["journal", "stderr"])
def test_an_application_that_configures_logging_takes_nothing_away(tmp_path, target):
    """dictConfig() closes all handlers, and disables the loggers that it does not name: not ours."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(5)
        command = [sys.executable, "-c", CONFIGURES, str(tmp_path / "socket"), target]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        if target == "journal":
            heard = [parse(sock.recv(65536))["MESSAGE"] for _ in range(2)]
        else:
            heard = [line.partition(": ")[2] for line in done.stderr.splitlines()]
    assert heard == ["heard in the zygote", "heard in the worker"]


STUCK = """
import logging, os, sys
from preforkd.linux import journal, logs
logs.ADDRESS = sys.argv[1]
logs.Journal = lambda wait=True: journal.Journal(sys.argv[1], wait=wait)
logs.configure("info", "journal")
logs.hurry()
logs.capture_output()
for number in range(2000):
    logging.getLogger("preforkd").info("record %d", number)
    print("printed", number)
os.write(2, b"burst over\\n")
sys.stdin.read(1)
logging.getLogger("preforkd").info("last")
"""


def test_a_stuck_journal_does_not_stop_a_worker(tmp_path):
    """Records and prints are dropped without waiting; how many records were is told later."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        with subprocess.Popen(
            [sys.executable, "-c", STUCK, str(tmp_path / "socket")],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stderr.readline() == "burst over\n"
            sock.setblocking(False)
            first = parse(sock.recv(65536))
            with contextlib.suppress(BlockingIOError):
                while sock.recv(65536):
                    pass
            child.communicate("x")
            assert child.returncode == 0
        last = parse(sock.recv(65536))
    assert first["MESSAGE"] == "record 0"
    assert last["MESSAGE"] == "last"
    assert int(last["PREFORKD_MISSED"]) > 1000


IMPATIENT = """
import logging, sys, time
from preforkd.linux import journal, logs
logs.ADDRESS = sys.argv[1]
logs.Journal = lambda wait=True: journal.Journal(sys.argv[1], wait=wait)
logs.configure("info", "journal")
begun = time.monotonic()
for number in range(3000):
    logging.getLogger("preforkd").info("record %d", number)
print(time.monotonic() - begun)
"""


def test_a_stuck_journal_costs_a_master_one_wait(tmp_path):
    """However many records: the watchdog must be fed meanwhile. What is not taken goes to stderr."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        command = [sys.executable, "-c", IMPATIENT, str(tmp_path / "socket")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    # One wait is a second; one for each record would be an hour.
    assert 0.9 < float(done.stdout) < 60
    assert "<6>record 2999" in done.stderr


STREAMS = """
import logging, sys
from preforkd.linux import journal, logs
logs.ADDRESS = sys.argv[1]
logs.Journal = lambda wait=True: journal.Journal(sys.argv[1], wait=wait)
logs.configure("info", "journal")
logs.set_context(generation=2)
logs.capture_output()
handler = logging.StreamHandler()
logs.set_context(worker=3)
handler.emit(logging.makeLogRecord({"msg": "by a handler of the application"}))
sys.stdout.reconfigure(line_buffering=True)
sys.stdout.buffer.write("bytesä\\n".encode())
print("<2>with a priority", file=sys.stderr)
print()
print(sys.stdout.encoding, sys.stderr.errors, sys.stderr.isatty(), sys.stderr.fileno())
"""


def test_an_application_may_use_its_streams_as_ever(tmp_path):
    """A handler made at import speaks for the worker; bytes, options and attributes are there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(5)
        command = [sys.executable, "-c", STREAMS, str(tmp_path / "socket")]
        subprocess.run(command, check=True)
        entries = [parse(sock.recv(65536)) for _ in range(4)]
    assert [(entry["MESSAGE"], entry["PRIORITY"]) for entry in entries] == [
        ("by a handler of the application", "4"),
        ("bytesä", "6"),
        ("with a priority", "2"),
        ("utf-8 backslashreplace False 2", "6"),
    ]
    assert {entry["PREFORKD_WORKER"] for entry in entries} == {"3"}
