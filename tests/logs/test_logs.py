"""Where records go, in a process of its own: logging is global."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from datetime import datetime, timedelta

import pytest

from tests.logs.test_journal import parse

CODE = """
import logging, sys
from preforkd.logs import journal, logs
if len(sys.argv) > 2:
    logs.ADDRESS = sys.argv[2]
    logs.Journal = lambda: journal.Journal(sys.argv[2])
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
    begun = datetime.now().astimezone()
    lines = run("stderr").split("\n")
    assert lines[0].endswith(": first")
    when, name, _ = lines[0].split(" ", 2)
    assert name.startswith("preforkd[")
    assert begun - timedelta(seconds=1) < datetime.fromisoformat(when) < datetime.now().astimezone()
    assert lines[1].endswith("warning: worker 3 (generation 2): two")
    assert lines[2] == "\tlines"
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
    said = run("journal", str(path))
    assert "<6>first" in said
    assert "<4>\tlines" in said
    assert os.path.exists(path)


CONFIGURES = """
import logging.config, sys
from preforkd.logs import journal, logs
logs.ADDRESS = sys.argv[1]
logs.Journal = lambda: journal.Journal(sys.argv[1])
ours, other = logging.getLogger("preforkd.worker"), logging.getLogger("preforkd_like")
logs.configure("info", sys.argv[2])
logging.config.dictConfig({"version": 1})
ours.info("heard in the zygote")
logs.renew()
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
from preforkd.logs import journal, logs
logs.ADDRESS = sys.argv[1]
logs.Journal = lambda: journal.Journal(sys.argv[1])
logs.configure("info", "journal")
logs.renew()
logs.set_context(worker=3)
logs.capture_output()
for number in range(2000):
    logging.getLogger("preforkd").info("record %d", number)
    print("printed", number)
os.write(2, b"burst over\\n")
sys.stdin.read(1)
"""


def test_a_stuck_journal_does_not_stop_a_worker(tmp_path):
    """Records and prints wait a second in all, then they are dropped; how many is told by itself."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(30)
        with subprocess.Popen(
            [sys.executable, "-c", STUCK, str(tmp_path / "socket")],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stderr.readline() == "burst over\n"
            entries = [parse(sock.recv(65536))]
            while "PREFORKD_MISSED" not in entries[-1]:
                entries.append(parse(sock.recv(65536)))
            child.communicate("x")
            assert child.returncode == 0
    last = entries.pop()
    assert entries[0]["MESSAGE"].endswith("record 0")
    lost = 4000 - len(entries)
    assert lost > 1000
    assert last["MESSAGE"] == f"{lost} lines of worker 3 were lost: the journal did not take them"
    assert last["PREFORKD_WORKER"] == "3"


BURST = """
import logging, sys
from preforkd.logs import journal, logs
logs.ADDRESS = sys.argv[1]
logs.Journal = lambda: journal.Journal(sys.argv[1])
logs.configure("info", "journal")
logs.renew()
logs.capture_output()
for number in range(3000):
    logging.getLogger("preforkd").info("record %d", number)
    print("printed", number)
"""


def test_a_burst_is_lost_by_nobody(tmp_path):
    """A journal that reads, slower than lines are written, gets every one."""
    entries = []

    def read(sock):
        with contextlib.suppress(TimeoutError):
            while True:
                entries.append(sock.recv(65536))

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(3)
        reader = threading.Thread(target=read, args=(sock,))
        reader.start()
        subprocess.run([sys.executable, "-c", BURST, str(tmp_path / "socket")], check=True)
        reader.join()
    assert len(entries) == 6000
    assert parse(entries[-1])["MESSAGE"] == "printed 2999"


IMPATIENT = """
import logging, sys, time
from preforkd.logs import journal, logs
logs.ADDRESS = sys.argv[1]
logs.Journal = lambda: journal.Journal(sys.argv[1])
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
from preforkd.logs import journal, logs
logs.ADDRESS = sys.argv[1]
logs.Journal = lambda: journal.Journal(sys.argv[1])
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


AS_THE_INTERPRETER = """
import io, logging, logging.config, sys
from preforkd.logs import journal, logs
logs.ADDRESS = sys.argv[1]
logs.Journal = lambda: journal.Journal(sys.argv[1])
logs.configure("info", "journal")
root = logging.getLogger()
assert (root.handlers, root.level, root.hasHandlers()) == ([], logging.WARNING, False)
application, ours = logging.getLogger("site"), logging.getLogger("preforkd.worker")
logs.keep_enabled("kept")
exec(sys.argv[2])
logs.configure("info", "journal")
logs.set_context(worker=3, generation=2)
application.info("info")
application.warning("warning")
ours.info("ours")
assert not logging.getLogger("kept").disabled
"""
DICTIONARY = """
logging.config.dictConfig({
    "version": 1,
    "handlers": {"own": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}},
    "root": {"handlers": ["own"], "level": "DEBUG"},
})
application = logging.getLogger("late")
"""
FILE = """
logging.config.fileConfig(io.StringIO('''
[loggers]
keys = root
[handlers]
keys = own
[formatters]
keys =
[logger_root]
handlers = own
[handler_own]
class = StreamHandler
args = ()
'''))
application = logging.getLogger("late")
"""
RECIPE_OF_LOGURU = """
for name in list(logging.root.manager.loggerDict):
    logging.getLogger(name).handlers = []
    logging.getLogger(name).propagate = True
logging.root.handlers = [logging.StreamHandler()]
"""
CONFIGURATIONS = {
    "": ("", ["warning", "ours"]),
    "application.setLevel('INFO')": ("", ["info", "warning", "ours"]),
    "logging.basicConfig(level='INFO', format='%(levelname)s=%(message)s')": (
        "INFO=info\nWARNING=warning\n",
        ["ours"],
    ),
    "logging.basicConfig(force=True)": ("WARNING:site:warning\n", ["ours"]),
    "application.addHandler(logging.StreamHandler())": ("warning\n", ["ours"]),
    DICTIONARY: ("info\nwarning\n", ["ours"]),
    FILE: ("warning\n", ["ours"]),
    RECIPE_OF_LOGURU: ("warning\n", ["ours"]),
    "logging.disable()": ("", ["ours"]),
    "for one in (ours, ours.parent): one.setLevel('CRITICAL')": ("", ["warning", "ours"]),
    "ours.addFilter(lambda record: False)": ("", ["warning", "ours"]),
    "logging.lastResort = None": ('No handlers could be found for logger "site"\n', ["ours"]),
}


@pytest.mark.parametrize("code", CONFIGURATIONS)
def test_an_application_finds_logging_as_the_interpreter_leaves_it(tmp_path, code):
    """What it configures is in force, once; what it leaves alone goes to the journal, with fields."""
    stderr, journal = CONFIGURATIONS[code]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(5)
        command = [sys.executable, "-c", AS_THE_INTERPRETER, str(tmp_path / "socket"), code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        entries = [parse(sock.recv(65536)) for _ in journal]
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(65536)
    assert done.stderr == stderr
    assert [entry["MESSAGE"] for entry in entries] == [
        f"worker 3 (generation 2): {text}" for text in journal
    ]
    said = {"warning": ("4", "site"), "info": ("6", "site"), "ours": ("6", "preforkd.worker")}
    for entry, text in zip(entries, journal, strict=True):
        assert (entry["PRIORITY"], entry["LOGGER"]) == said[text]
        assert entry["PREFORKD_WORKER"] == "3"


UNSAFE = """
import logging, sys
from preforkd.logs import journal, logs
logs.Journal = lambda: journal.Journal(sys.argv[2])
logs.configure("info", sys.argv[1])
text = "\\x1b]0;title\\x07\\npreforkd[1]: generation 99 serves"
logging.getLogger("preforkd").info(text)
logs.capture_output()
if len(sys.argv) > 2:
    print("\\x1b[31mred\\x1b[0m \\x1b[2J")
"""


def test_control_characters_reach_no_terminal_and_forge_no_line(tmp_path):
    """Escapes are written out, in records and in what is printed; a line that follows is indented."""
    command = [sys.executable, "-c", UNSAFE]
    done = subprocess.run([*command, "stderr"], capture_output=True, text=True, check=True)
    first, second = done.stderr.splitlines()
    assert first.endswith(r": \x1b]0;title\x07")
    assert second == "\tpreforkd[1]: generation 99 serves"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(5)
        subprocess.run([*command, "journal", str(tmp_path / "socket")], check=True)
        entries = [parse(sock.recv(65536))["MESSAGE"] for _ in range(2)]
    assert entries[0].startswith(r"\x1b]0;title\x07")
    assert entries[1] == r"red \x1b[2J"


FULL = """
import os, sys
from preforkd.logs import logs
error = logs.StandardError(1.0)
file = os.dup(2)
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
assert [error.write("lost\\n") for _ in range(3)] == [False] * 3
os.dup2(file, 2)
assert error.write("kept\\n")
"""


def test_lines_that_cannot_be_written_are_counted():
    """As on a full disk: how many stands in front of the next line that is written."""
    done = subprocess.run(
        [sys.executable, "-c", FULL], stderr=subprocess.PIPE, text=True, check=True
    )
    assert done.stderr == "(3 lines were lost here: they could not be written)\nkept\n"
