"""The configuration of logging, next to that of an application."""

import pytest

from tests.logs.processes import bound_journal, entries, run

CONFIGURES = """
ours, other = logging.getLogger("preforkd.worker"), logging.getLogger("preforkd_like")
logs.configure("info", sys.argv[2])
logging.config.dictConfig({"version": 1})
ours.info("from the zygote")
logs.renew_after_fork()
logging.config.dictConfig({"version": 1})
ours.info("from the worker")
assert other.disabled
"""


@pytest.mark.parametrize("target", ["journal", "stderr"])
def test_the_configuration_of_an_application_does_not_disable_ours(tmp_path, target):
    """dictConfig() closes all handlers and disables the loggers that it does not name, except preforkd's."""
    with bound_journal(tmp_path / "socket") as sock:
        done = run(CONFIGURES, tmp_path / "socket", target)
        if target == "journal":
            received = [entry["MESSAGE"] for entry in entries(sock, 2)]
        else:
            received = [line.partition(": ")[2] for line in done.stderr.splitlines()]
    assert received == ["from the zygote", "from the worker"]


AS_THE_INTERPRETER = """
logs.configure("info", "journal")
root = logging.getLogger()
assert (root.handlers, root.level, root.hasHandlers()) == ([], logging.WARNING, False)
application, ours = logging.getLogger("site"), logging.getLogger("preforkd.worker")
logs.keep_enabled("kept")
exec(sys.argv[2])
logs.configure("info", "journal")
set_context(worker=3, generation=2)
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
def test_an_application_finds_logging_as_the_interpreter_provides_it(tmp_path, code):
    """What it configures applies, once; records that it does not handle go to the journal, with fields."""
    stderr, journal = CONFIGURATIONS[code]
    with bound_journal(tmp_path / "socket") as sock:
        done = run(AS_THE_INTERPRETER, tmp_path / "socket", code)
        received = entries(sock, len(journal))
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(65536)
    assert done.stderr == stderr
    assert [entry["MESSAGE"] for entry in received] == [
        f"worker 3 (generation 2): {text}" for text in journal
    ]
    expected = {"warning": ("4", "site"), "info": ("6", "site"), "ours": ("6", "preforkd.worker")}
    for entry, text in zip(received, journal, strict=True):
        assert (entry["PRIORITY"], entry["LOGGER"]) == expected[text]
        assert entry["PREFORKD_WORKER"] == "3"
