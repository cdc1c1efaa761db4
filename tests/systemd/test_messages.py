"""What the journal says: fields, priorities, explanations; and a journal that hangs."""

import re

from tests.systemd.machine import NC, drop_in


def test_the_journal_has_fields(machine):
    """Lines about a worker are found by its seat; they are ours by identifier and transport."""
    machine.run("systemctl start preforkd.service")
    lines = machine.run("journalctl -u preforkd PREFORKD_WORKER=3 -o cat --no-pager")
    assert "worker 3 (pid" in lines
    assert "worker 2 (pid" not in lines
    entry = machine.run("journalctl -u preforkd PREFORKD_WORKER=3 -o json --no-pager -n 1")
    for part in ('"_TRANSPORT":"journal"', '"SYSLOG_IDENTIFIER":"preforkd"', '"OBJECT_PID"'):
        assert part in entry
    (machine.root / "srv/speaks.py").write_text(
        "import sys\ndef handle(connection, peer):\n"
        "    print('spoken', file=sys.stderr)\n    connection.sendall(b'said')\n"
    )
    machine.configure("app: {target: 'stream:speaks:handle', directory: /srv}\nworkers: 1\n")
    machine.run("systemctl restart preforkd.service")
    assert "said" in machine.run(NC)
    machine.until("journalctl -u preforkd PREFORKD_WORKER=1 -p warning -o cat", "spoken")
    explained = machine.run("journalctl -u preforkd -x --no-pager")
    assert "bound by preforkd" in explained
    # A normal reload: what happens to each worker is told in a line, and explained nowhere.
    machine.run("systemctl reload preforkd")
    machine.until("journalctl -u preforkd -o cat --no-pager", "generation 1) exited: exit status 0")
    explained = machine.run("journalctl -u preforkd -x PREFORKD_WORKER=1 PREFORKD_WORKER=2")
    assert "generation 2) is ready" in explained
    assert "░░" not in explained
    functions = machine.run("journalctl -u preforkd -F CODE_FUNC --no-pager").split()
    assert {"_worker_ready", "_worker_exited", "_zygote_loaded"} <= set(functions)
    assert "_about" not in functions


SPEAKS = """\
import logging, os, sys
own = logging.getLogger("own")
own.propagate = False
own.addHandler(logging.StreamHandler())
print("while it loads", file=sys.stderr)

def application(environ, start_response):
    print("printed", file=sys.stderr)
    logging.getLogger("shop").error("a record", extra={"secret": "geheim"})
    own.warning("by a handler of its own")
    os.write(2, b"below Python\\n")
    os.system("echo by a program >&2")
    start_response("200 OK", [("Content-Length", "4")])
    return [b"said"]
"""


def test_what_an_application_says_is_known_by_its_worker(machine):
    """Records, prints, handlers of its own, C libraries, programs: priority and the worker's fields."""
    (machine.root / "srv/speaks.py").write_text(SPEAKS)
    machine.configure("app: {target: 'wsgi:speaks:application', directory: /srv}\nworkers: 1\n")
    machine.run("systemctl start preforkd.socket")
    assert machine.run("curl -sf http://127.0.0.1:8080/") == "said"
    of_worker = "journalctl -u preforkd PREFORKD_WORKER=1 -o cat --no-pager -p"
    for words in ("printed", "by a handler of its own", "below Python", "by a program"):
        machine.until(f"{of_worker} warning", words)
    machine.until(f"{of_worker} err", "a record")
    assert "printed" not in machine.run(f"{of_worker} err")
    machine.until("journalctl -u preforkd PREFORKD_GENERATION=1 -p warning", "while it loads")
    assert "geheim" not in machine.run("journalctl -u preforkd -o json --no-pager")


CONFIGURES = """\
import logging.config
logging.config.dictConfig({"version": 1})

def application(environ, start_response):
    logging.config.dictConfig({"version": 1})
    raise RuntimeError("it broke")
"""


def test_an_application_that_configures_logging_takes_nothing_away(machine):
    """dictConfig(), while it is loaded and later: the failure of its request is in the journal."""
    (machine.root / "srv/configures.py").write_text(CONFIGURES)
    machine.configure("app: {target: 'wsgi:configures:application', directory: /srv}\nworkers: 1\n")
    machine.run("systemctl start preforkd.socket")
    machine.run("curl -s http://127.0.0.1:8080/")
    said = "journalctl -u preforkd PREFORKD_WORKER=1 -p err -o json --no-pager"
    machine.until(said, "it broke")
    assert '"_TRANSPORT":"journal"' in machine.run(said)


FLOOD = """
import urllib.request
for number in range(4000):
    address = "http://127.0.0.1:8080/"
    assert urllib.request.urlopen(address, timeout=20).read() == b"said"
print("all answered")
"""


def test_a_journal_that_hangs_stops_nobody(machine):
    """journald is stopped: 4000 requests that each write to it are answered, and a reload works."""
    (machine.root / "srv/speaks.py").write_text(SPEAKS)
    (machine.root / "srv/flood.py").write_text(FLOOD)
    app = "app: {target: 'wsgi:speaks:application', directory: /srv}\n"
    machine.configure(app + "workers: 1\naccess_log: {target: stderr}\n")
    machine.run("systemctl start preforkd.socket preforkd.service")
    machine.run("kill -STOP $(systemctl show systemd-journald -p MainPID --value)")
    try:
        assert "all answered" in machine.run("python3 /srv/flood.py")
        assert "generation 2 is serving" in machine.run("preforkctl reload --fresh")
    finally:
        machine.run("kill -CONT $(systemctl show systemd-journald -p MainPID --value)")
    assert machine.run("curl -sf http://127.0.0.1:8080/last") == "said"
    machine.until("journalctl -u preforkd PREFORKD_GENERATION=2 -o cat", '"GET /last HTTP/1.1" 200')
    machine.until("journalctl -u preforkd PREFORKD_WORKER=1 -o cat", "lines of worker 1 were lost")
    assert machine.show("preforkd", "NRestarts") == "0"


BURSTS = """\
import logging, os

def application(environ, start_response):
    for number in range(1000):
        print("printed", number)
    for number in range(4000):
        logging.getLogger("shop").warning("logged %d", number)
    os.system("i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo program $i; done")
    start_response("200 OK", [("Content-Length", "4")])
    return [b"said"]
"""


def test_a_burst_of_lines_arrives_whole(machine):
    """A journal that reads gets all that a worker prints and logs in one go, and what its programs print."""
    (machine.root / "srv/bursts.py").write_text(BURSTS)
    machine.configure("app: {target: 'wsgi:bursts:application', directory: /srv}\nworkers: 1\n")
    machine.run("systemctl start preforkd.socket")
    assert machine.run("curl -sf http://127.0.0.1:8080/") == "said"
    machine.until("journalctl -u preforkd -o cat", "program 1000")
    said = machine.run("journalctl -u preforkd PREFORKD_WORKER=1 -o cat --no-pager").splitlines()
    for word, count in (("printed", 1000), ("logged", 4000), ("program", 1000)):
        assert sum(f"{word} " in line for line in said) == count


EVENTFUL = """\
import os, time
def application(environ, start_response):
    what = environ["QUERY_STRING"]
    if what == "exit":
        os._exit(3)
    time.sleep(float(what or 0))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


EVENTS = """\
The service is starting; it loads the application
Listening on 127.0.0.1:8080, bound by preforkd
Listening on 127.0.0.1:8080, kept by systemd
Listening on http, a socket from systemd
Generation 1 is serving
Reload completed: generation 2 is serving
A reload changed settings without starting new workers
A reload failed; the current generation keeps serving
Worker 1 exited unexpectedly
Worker 1 did not exit in time
Worker 1 is killed
The zygote of generation 1 exited unexpectedly
Starts fail repeatedly; the next one is delayed
The service cannot start
The service is stopping
The service exits because it is idle
"""


def test_every_event_is_explained(machine):
    """Each is provoked, and journalctl -x says what it means, with the worker's and socket's names."""
    (machine.root / "srv/eventful.py").write_text(EVENTFUL)
    app = "app: {target: 'wsgi:eventful:application', directory: /srv}\nworkers: 1\n"
    ask = "curl -s --max-time 20 'http://127.0.0.1:8080/?{}'"
    machine.configure(app)
    machine.run("systemctl start preforkd.service; systemctl restart preforkd.service")
    machine.run("kill -KILL $(pgrep -f '[p]reforkd: zygote')")
    machine.until("systemctl status preforkd", "preforkd: zygote, generation 1")
    machine.run("systemctl reload preforkd")
    machine.configure(app + "timeouts: {drain: 1s}\n")
    machine.run("systemctl reload preforkd")
    machine.configure(app + "wrokers: 1\n")
    assert machine.call("systemctl reload preforkd").returncode
    machine.configure(app + "timeouts: {drain: 1s}\n")
    slow = machine.start(ask.format(30))
    machine.until("preforkctl status", "busy for")
    machine.run("systemctl reload preforkd")  # whose drain takes too long
    slow.communicate(timeout=30)
    for _ in range(4):
        machine.call(ask.format("exit"))
    machine.until("journalctl -u preforkd -o cat", "start failure")
    machine.until("preforkctl status", "1 of 1 workers ready")
    slow = machine.start(ask.format(30))
    machine.until("preforkctl status", "busy for")
    machine.run("preforkctl stop --quick")
    slow.communicate(timeout=30)
    machine.configure("app: {target: 'wsgi:gone:application'}\n")
    assert machine.call("systemctl start preforkd.service").returncode
    machine.configure(app + "idle_exit: 300ms\n")
    machine.run("systemctl start preforkd.socket")
    assert machine.run(ask.format("")) == "ok"
    machine.until("systemctl show preforkd -p ActiveState", "=inactive")
    explained = machine.run("journalctl -u preforkd -x --no-pager")
    # A seat's number depends on which was free.
    subjects = set(re.sub(r"Worker \d+", "Worker 1", explained).splitlines())
    missing = [line for line in EVENTS.splitlines() if f"░░ Subject: {line}" not in subjects]
    assert missing == [], explained


def test_a_pool_that_cannot_serve_is_restarted(machine):
    """Nobody serves and nobody can be started: the watchdog is not fed, and systemd starts anew."""
    drop_in(machine, "[Service]\nWatchdogSec=4\nTimeoutAbortSec=4\n")
    code = machine.root / "srv/eventful.py"
    code.write_text(EVENTFUL)
    app = "app: {target: 'wsgi:eventful:application', directory: /srv}\nworkers: 1\n"
    machine.configure(app + "timeouts: {start: 1s, boot: 1s}\n")
    machine.run("systemctl start preforkd.socket preforkd.service")
    code.write_text("raise RuntimeError('broken meanwhile')\n")
    machine.run("kill -KILL $(pgrep -f '[p]reforkd: zygote') $(pgrep -f '[p]reforkd: worker')")
    machine.until(
        "journalctl -u preforkd -x --no-pager", "Subject: The watchdog ping is withheld", 90
    )
    machine.until("journalctl -u preforkd -o cat --no-pager", "Watchdog timeout")
    code.write_text(EVENTFUL)
    assert machine.run("curl -sf --max-time 60 http://127.0.0.1:8080/") == "ok"
    assert "broken meanwhile" in machine.journal("-u preforkd -p err")
