"""The installed package, driven by systemctl and watched with journalctl."""

import re
import sys

import pytest
from machine import PACKAGE, TREE, finish

sys.path.insert(0, str(TREE / "tests/worker"))
import certificate

pytestmark = pytest.mark.systemd

NC = """python3 -c "
import socket
with socket.create_connection(('127.0.0.1', 8080), 20) as sock:
    print(sock.recv(999).decode())
"
"""
DJANGO = """\
app:
  target: wsgi:mysite.wsgi:application
  directory: /srv/site
  python: /srv/site/.venv/bin/python
"""
ECHO = "app: {target: 'wsgi:echo:application', directory: /srv}\n"


def test_the_story_of_an_administrator(machine):
    """Socket, first connection, an edit and a reload, a typo that is refused, a stop."""
    machine.run("systemctl start preforkd.socket")
    assert machine.show("preforkd.service", "ActiveState") == "inactive"
    assert "Hello from preforkd worker" in machine.run(NC)
    assert machine.show("preforkd.service", "ActiveState") == "active"
    status = machine.run("systemctl status preforkd")
    assert "4 of 4 workers ready" in status
    assert "preforkd: worker 1, generation 1, serving" in status
    machine.configure(DJANGO)
    machine.run("systemctl reload preforkd")
    congratulations = "The install worked successfully"
    assert congratulations in machine.run("curl -sf http://127.0.0.1:8080/")
    machine.configure(DJANGO + "wrokers: 3\n")
    refused = machine.call("systemctl reload preforkd")
    assert refused.returncode != 0
    place = "/etc/preforkd.yaml:5:1: wrokers: there is no such setting (did you mean workers?)"
    assert place in machine.run("systemctl show preforkd -p StatusText")
    assert place in machine.journal()
    assert congratulations in machine.run("curl -sf http://127.0.0.1:8080/")
    machine.configure(ECHO)
    machine.run("systemctl reload preforkd")
    load = machine.load("127.0.0.1:8080", "--rate 100 --keep-alive 0")
    machine.until("preforkctl status --json", '"requests": 9')
    machine.run("systemctl stop preforkd.service")
    # What comes after the stop waits in the socket, and starts the service again.
    machine.until("systemctl show preforkd -p ActiveState", "=active")
    counted = finish(load)
    assert re.match(r"\d+ ok; ", counted), counted


def kill_master(machine, unit):
    """Kill a service's master; return when systemd has started it again and it serves."""
    restarts = int(machine.show(unit, "NRestarts"))
    machine.run(f"kill -KILL $(systemctl show {unit} -p MainPID --value)")
    machine.until(f"systemctl show {unit} -p NRestarts", f"={restarts + 1}")
    machine.until(f"systemctl show {unit} -p ActiveState", "=active")


def check_nothing_lost(loads):
    """End the loads and demand that all was answered."""
    for load in loads:
        counted = finish(load)
        assert re.match(r"\d+ ok; ", counted), counted
        assert int(counted.split()[0]) > 200


MIXED = "--rate 100 --keep-alive 4 --fresh 6"


def test_nothing_is_lost_with_socket_activation(machine):
    """TCP and Unix, fresh and kept connections: no reload, restart, crash or upgrade loses a request."""
    machine.configure(ECHO)
    machine.configure(ECHO, "preforkd/shop.yaml")
    services = ("preforkd", "preforkd@shop")
    sockets = " ".join(f"{name}.socket" for name in services)
    machine.run(f"systemctl start {sockets}")
    since = machine.show("preforkd.socket", "ActiveEnterTimestampMonotonic")
    loads = [
        machine.load(address, MIXED) for address in ("127.0.0.1:8080", "/run/preforkd-shop.sock")
    ]
    for name in services:
        machine.until(f"systemctl show {name} -p ActiveState", "=active")
    for turn in range(5):
        for name in services:
            machine.run(f"systemctl reload {name}")
        if turn == 2:
            machine.run("systemctl daemon-reload")
    for turn in range(3):
        machine.run(f"systemctl restart {' '.join(services)}")
        if turn == 1:
            machine.run("systemctl daemon-reexec")
    for name in services:
        kill_master(machine, name)
    before = machine.show("preforkd", "MainPID")
    machine.run(f"dpkg --force-confold -i {PACKAGE}")
    for name in services:
        machine.until(f"systemctl show {name} -p ActiveState", "=active")
    assert machine.show("preforkd", "MainPID") != before
    check_nothing_lost(loads)
    assert machine.show("preforkd.socket", "ActiveEnterTimestampMonotonic") == since


def test_nothing_is_lost_with_sockets_of_our_own(machine):
    """The store keeps what preforkd bound, TCP and Unix: restarts, crashes, upgrades refuse nobody."""
    machine.configure(ECHO + "listen: [':8081', 'unix:/run/preforkd/web.sock']\n")
    machine.run("systemctl start preforkd.service")
    loads = [
        machine.load(address, MIXED) for address in ("127.0.0.1:8081", "/run/preforkd/web.sock")
    ]
    for command in ("reload", "daemon-reload", "restart", "daemon-reexec", "restart", "restart"):
        machine.run(f"systemctl {command}" + ("" if "daemon" in command else " preforkd"))
    kill_master(machine, "preforkd")
    machine.run(f"dpkg --force-confold -i {PACKAGE}")
    machine.until("systemctl show preforkd -p ActiveState", "=active")
    check_nothing_lost(loads)
    assert machine.show("preforkd", "NFileDescriptorStore") == "2"
    # What is configured no more leaves the store.
    machine.configure(ECHO + "listen: [':8081']\n")
    machine.run("systemctl reload preforkd")
    machine.until("systemctl show preforkd -p NFileDescriptorStore", "=1")
    machine.run("systemctl stop preforkd")
    machine.until("systemctl show preforkd -p NFileDescriptorStore", "=0")


def drop_in(machine, text, unit="preforkd.service"):
    """Change a unit."""
    folder = machine.root / f"etc/systemd/system/{unit}.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.conf").write_text(text)
    machine.run("systemctl daemon-reload")


SLOW = """\
import time
def application(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"] or 0))
    start_response("200 OK", [("Content-Length", "4")])
    return [b"slow"]
"""


def test_a_drain_may_take_longer_than_the_unit_grants(machine):
    """TimeoutStopSec=10: a request of 25 s is finished, though systemd was reloaded meanwhile."""
    drop_in(machine, "[Service]\nTimeoutStopSec=10\n")
    (machine.root / "srv/slow.py").write_text(SLOW)
    machine.configure("app: {target: 'wsgi:slow:application', directory: /srv}\n")
    machine.run("systemctl start preforkd.socket preforkd.service")
    asked = machine.start("curl -sf --max-time 60 'http://127.0.0.1:8080/?25'")
    machine.until("preforkctl status", "busy for")
    machine.run("systemctl stop --no-block preforkd.service")
    machine.until("systemctl show preforkd -p ActiveState", "=deactivating")
    machine.run("systemctl daemon-reload")
    machine.run("systemctl daemon-reexec")
    answer, _ = asked.communicate(timeout=60)
    assert answer == "slow", machine.journal()
    machine.until("systemctl show preforkd -p ActiveState", "=inactive")
    assert machine.show("preforkd", "Result") == "success"


def test_a_master_that_hangs_is_restarted(machine):
    """SIGSTOP: the watchdog ends it with its stack in the journal; the socket never refuses."""
    drop_in(machine, "[Service]\nWatchdogSec=2\nTimeoutAbortSec=2\n")
    machine.configure(ECHO)
    machine.run("systemctl start preforkd.socket")
    assert "id=1" in machine.run("curl -sf '127.0.0.1:8080/?id=1'")
    load = machine.load("127.0.0.1:8080", MIXED)
    machine.run("kill -STOP $(systemctl show preforkd -p MainPID --value)")
    machine.until("systemctl show preforkd -p NRestarts", "=1")
    assert "id=2" in machine.run("curl -sf --max-time 30 '127.0.0.1:8080/?id=2'")
    check_nothing_lost([load])
    journal = machine.journal()
    assert "watchdog" in journal
    assert "Fatal Python error: Aborted" in journal
    assert "in run_forever" in journal  # where it hung


def test_the_units_are_in_order(machine):
    """verify has nothing to say, the sandbox scores as promised, the package is whole."""
    said = machine.run(
        "systemd-analyze verify --man=no preforkd.service preforkd.socket "
        "preforkd@x.service preforkd@x.socket 2>&1"
    )
    assert said.strip() == ""
    score = machine.run("systemd-analyze security --no-pager preforkd.service | tail -1")
    assert float(re.search(r"(\d+\.\d+)", score)[1]) <= 1.3, score
    machine.run("mkdir -p /etc/systemd/system/preforkd.service.d")
    machine.run(
        "cp /usr/share/doc/preforkd/examples/no-network.conf "
        "/etc/systemd/system/preforkd.service.d/; systemctl daemon-reload"
    )
    score = machine.run("systemd-analyze security --no-pager preforkd.service | tail -1")
    assert float(re.search(r"(\d+\.\d+)", score)[1]) <= 0.5, score
    machine.configure(ECHO)
    machine.run("systemctl start preforkd.socket")
    assert "id=1" in machine.run("curl -sf '127.0.0.1:8080/?id=1'")


def test_many_applications(machine):
    """Each template instance has its own file, socket, control socket and journal field."""
    for name, port in (("shop", 9001), ("blog", 9002)):
        machine.configure(ECHO, f"preforkd/{name}.yaml")
        machine.run(
            f"mkdir -p /etc/systemd/system/preforkd@{name}.socket.d; printf "
            f"'[Socket]\\nListenStream=\\nListenStream=127.0.0.1:{port}\\n' > "
            f"/etc/systemd/system/preforkd@{name}.socket.d/address.conf"
        )
    machine.run(
        "systemctl daemon-reload; systemctl start preforkd@shop.socket preforkd@blog.socket"
    )
    for port in (9001, 9002):
        assert "id=1" in machine.run(f"curl -sf '127.0.0.1:{port}/?id=1'")
    assert "4 of 4 workers ready" in machine.run("preforkctl --instance shop status")
    assert "serves" in machine.journal("PREFORKD_INSTANCE=blog")


def test_a_start_that_fails_says_why_and_closes_no_socket(machine):
    """A missing file, a typo, an application that does not load: told in full, and the client waits."""
    machine.run("systemctl start preforkd@shop.socket")
    wait = machine.start(
        "curl -s --max-time 60 --unix-socket /run/preforkd-shop.sock 'http://x/?id=7'"
    )
    machine.until(
        "systemctl show preforkd@shop -p StatusText", "/etc/preforkd/shop.yaml: cannot be read"
    )
    machine.configure("wrokers: 3\n", "preforkd/shop.yaml")
    place = "/etc/preforkd/shop.yaml:1:1: wrokers"
    machine.until("systemctl show preforkd@shop -p StatusText", place)
    machine.until(
        "journalctl -x -p crit -u preforkd@shop --no-pager", "Subject: The service cannot start"
    )
    assert place in machine.journal("-p crit -u preforkd@shop")
    machine.configure("app: {target: 'wsgi:gone:app'}\n", "preforkd/shop.yaml")
    machine.until("systemctl show preforkd@shop -p StatusText", "no module named 'gone'")
    machine.configure(ECHO, "preforkd/shop.yaml")
    answer, _ = wait.communicate(timeout=60)
    assert "id=7" in answer
    assert machine.show("preforkd@shop.socket", "ActiveState") == "active"


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
        assert "generation 2 serves" in machine.run("preforkctl reload --fresh")
    finally:
        machine.run("kill -CONT $(systemctl show systemd-journald -p MainPID --value)")
    assert machine.run("curl -sf http://127.0.0.1:8080/last") == "said"
    machine.until("journalctl -u preforkd PREFORKD_GENERATION=2 -o cat", '"GET /last HTTP/1.1" 200')
    assert machine.show("preforkd", "NRestarts") == "0"


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
    assert "Subject: Worker 3 has started and is ready" in explained
    assert "bound by preforkd" in explained


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
The service has started, and loads the application
Listening on 127.0.0.1:8080, bound by preforkd
Listening on 127.0.0.1:8080, kept by systemd
Listening on http, a socket from systemd
Worker 1 has started and is ready
Generation 1 serves
A reload is done: generation 2 serves
A reload has changed settings without new workers
A reload was refused; what served serves on
Worker 1 has ended
Worker 1 did not leave in time
Worker 1 is killed
The zygote of generation 1 has ended
Starts fail again and again
The service cannot start
The service stops
The service leaves because nobody uses it
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
    machine.until("journalctl -u preforkd -o cat", "starts have failed")
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
    machine.until("journalctl -u preforkd -x --no-pager", "Subject: The watchdog is not fed", 90)
    code.write_text(EVENTFUL)
    machine.until("systemctl show preforkd -p NRestarts", "=1")
    assert machine.run("curl -sf --max-time 30 http://127.0.0.1:8080/") == "ok"
    assert "broken meanwhile" in machine.journal("-u preforkd -p err")


def test_the_package_comes_and_goes(machine):
    """An edited configuration survives upgrade and removal; purge leaves nothing of ours."""
    machine.configure(ECHO)
    machine.run("systemctl start preforkd.socket preforkd.service")
    machine.run("systemctl start preforkd@shop.socket")
    machine.run(f"dpkg --force-confold -i {PACKAGE}")
    assert (machine.root / "etc/preforkd.yaml").read_text() == ECHO
    machine.run("dpkg --remove preforkd")
    assert "preforkd" not in machine.run(
        "systemctl list-units --plain --no-legend --all 'preforkd*'"
    )
    assert (machine.root / "etc/preforkd.yaml").read_text() == ECHO
    assert not (machine.root / "usr/lib/preforkd").exists()
    machine.run(f"dpkg --force-confold -i {PACKAGE}")
    machine.run("systemctl start preforkd.socket")
    assert "id=1" in machine.run("curl -sf '127.0.0.1:8080/?id=1'")
    machine.run("dpkg --purge preforkd")
    assert (
        machine.run(
            "find / -xdev -name '*preforkd*' -not -path '/proc/*' -not -path '/srv/*' "
            "-not -path '/var/log/*' -not -path '/sys/*'"
        ).strip()
        == ""
    )
    assert "preforkd" not in machine.run("journalctl --list-catalog")


def test_an_upgrade_stops_no_service_whose_file_has_a_fault(machine):
    """The file was broken after the last reload: what serves is left as it is, and that is said."""
    machine.configure(ECHO)
    machine.configure(ECHO, "preforkd/shop.yaml")
    machine.run("systemctl start preforkd.socket preforkd.service preforkd@shop.service")
    before = {unit: machine.show(unit, "MainPID") for unit in ("preforkd", "preforkd@shop")}
    machine.configure(ECHO + "wrokers: 3\n")
    said = machine.run(f"dpkg --force-confold -i {PACKAGE}")
    assert "/etc/preforkd.yaml:2:1: wrokers" in said
    assert "preforkd.service is not restarted" in said
    assert machine.show("preforkd", "MainPID") == before["preforkd"]
    assert machine.show("preforkd@shop", "MainPID") != before["preforkd@shop"]
    assert "id=1" in machine.run("curl -sf '127.0.0.1:8080/?id=1'")


def test_the_control_socket_speaks_varlink(machine):
    """systemd's own client reads the interface and calls it (varlinkctl, 255 and newer)."""
    machine.run("systemctl start preforkd.service")
    if machine.call("command -v varlinkctl").returncode:
        assert machine.suite == "bookworm"
        return
    path = "/run/preforkd/io.preforkd.Manager"
    assert "method Reload(" in machine.run(f"varlinkctl introspect {path} io.preforkd.Manager")
    assert '"serving"' in machine.run(
        f"varlinkctl call {path} io.preforkd.Manager.GetStatus '{{}}'"
    )
    answer = machine.run(f"varlinkctl call {path} io.preforkd.Manager.Reload '{{\"fresh\": true}}'")
    assert "generation 2 serves" in answer


def test_strangers_may_look_and_not_command(machine):
    """Any user reads the status; a reload is refused to him with status 77."""
    machine.run("systemctl start preforkd.service")
    as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups preforkctl"
    assert "4 of 4 workers ready" in machine.run(f"{as_nobody} status")
    refused = machine.call(f"{as_nobody} reload")
    assert refused.returncode == 77, refused.stdout
    machine.run("preforkctl reload")


RACE = """
import socket, sys, threading, time
lost = []

def ask(number):
    try:
        with socket.create_connection(("127.0.0.1", 8080), 30) as sock:
            sock.sendall(b"GET /?id=%d HTTP/1.0\\r\\n\\r\\n" % number)
            data = b""
            while piece := sock.recv(999):
                data += piece
        if b"id=%d" % number not in data:
            lost.append(data)
    except OSError as error:
        lost.append(error)

for turn in range(30):
    clients = [threading.Thread(target=ask, args=(turn * 5 + n,)) for n in range(5)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    # The service leaves some 0.3 s after it was quiet, which it notices within two seconds.
    time.sleep(1.0 + turn * 0.05)
print(len(lost), "lost", lost[:3])
"""


def test_an_idle_exit_loses_nothing(machine):
    """150 clients that come just when the service leaves are all answered."""
    machine.configure(ECHO + "idle_exit: 300ms\n")
    (machine.root / "srv/race.py").write_text(RACE)
    machine.run("systemctl start preforkd.socket")
    assert machine.run("python3 /srv/race.py", timeout=180).startswith("0 lost"), machine.journal()
    exits = machine.journal("-u preforkd -o cat").count("idle for 0.3 s")
    assert exits >= 5
    machine.until("systemctl show preforkd -p ActiveState", "=inactive")
    assert machine.show("preforkd", "Result") == "success"


def test_a_secret_comes_as_a_credential(machine):
    """LoadCredential= passes it, the application finds it in its environment, config hides it."""
    machine.run(
        "mkdir -p /etc/systemd/system/preforkd.service.d; echo geheim > /etc/secret; "
        "printf '[Service]\\nLoadCredential=key:/etc/secret\\n' "
        "> /etc/systemd/system/preforkd.service.d/secret.conf; systemctl daemon-reload"
    )
    (machine.root / "srv/shows.py").write_text(
        "import os\ndef handle(connection, peer):\n"
        "    connection.sendall(os.environ['SECRET_KEY'].encode())\n"
    )
    machine.configure(
        "app:\n  target: stream:shows:handle\n  directory: /srv\n"
        "  environment: {SECRET_KEY: {credential: key}}\n"
    )
    machine.run("systemctl start preforkd.socket")
    assert machine.run(NC).strip() == "geheim"
    assert "geheim" not in machine.run("preforkd config")


def test_the_key_of_tls_comes_as_a_credential(machine):
    """Certificate and key need not be readable by the service's user: systemd passes them."""
    for name, text in (("certificate", certificate.CERTIFICATE), ("key", certificate.KEY)):
        path = machine.root / "etc" / f"tls.{name}"
        path.write_text(text)
        path.chmod(0o600)
    loads = "".join(
        f"LoadCredential=tls.{name}:/etc/tls.{name}\n" for name in ("certificate", "key")
    )
    drop_in(machine, f"[Service]\n{loads}")
    machine.configure(
        ECHO + "listen: [{name: http, tls: true}]\n"
        "tls: {certificate: {credential: tls.certificate}, key: {credential: tls.key}}\n"
    )
    machine.run("systemctl start preforkd.socket")
    trusted = "curl -sf --cacert /etc/tls.certificate --resolve localhost:8080:127.0.0.1"
    assert "id=1" in machine.run(f"{trusted} 'https://localhost:8080/?id=1'")
    machine.run("systemctl reload preforkd")
    assert "id=2" in machine.run(f"{trusted} 'https://localhost:8080/?id=2'")


def test_short_memory_is_answered(machine):
    """The master watches what systemd names (254 and newer), and gives back when it is told."""
    machine.configure(ECHO)
    machine.run("systemctl start preforkd.service")
    watched = "ls -l /proc/$(systemctl show preforkd -p MainPID --value)/fd"
    named = "system.slice/preforkd.service/memory.pressure" in machine.run(watched)
    assert named == (machine.suite != "bookworm")
    # The kernel cannot be made to run short here: a FIFO speaks instead, as a container manager would.
    machine.run("mkfifo /run/pressure; chown preforkd /run/pressure")
    drop_in(machine, "[Service]\nEnvironment=MEMORY_PRESSURE_WATCH=/run/pressure\n")
    machine.run("systemctl restart preforkd; timeout 20 sh -c 'echo > /run/pressure'")
    machine.until("journalctl -u preforkd -x --no-pager", "Subject: Memory is short")
    assert "id=1" in machine.run("curl -sf '127.0.0.1:8080/?id=1'")


FLASK = """\
import flask
app = flask.Flask(__name__)

@app.get("/")
def index():
    return "flask serves"
"""


def test_applications_run_in_each_sandbox(machine):
    """Flask and Django are served with every drop-in that is shipped."""
    (machine.root / "srv/site/flask_site.py").write_text(FLASK)
    flask = DJANGO.replace("mysite.wsgi:application", "flask_site:app")
    folder = "/etc/systemd/system/preforkd.service.d"
    machine.run(f"mkdir -p {folder}; systemctl start preforkd.socket")
    names = ["no-network", "low-ports", "jit", "cpu-pinning", "dynamic-user", "control-group"]
    for name in names:
        machine.run(
            f"systemctl stop preforkd.service; rm -f {folder}/*; "
            f"cp /usr/share/doc/preforkd/examples/{name}.conf {folder}/; systemctl daemon-reload"
        )
        for text, words in ((flask, "flask serves"), (DJANGO, "worked successfully")):
            machine.configure(text)
            machine.call("systemctl reload preforkd")
            served = machine.run("curl -sf --max-time 20 http://127.0.0.1:8080/")
            assert words in served, name
            machine.run("systemctl stop preforkd.service")


def test_a_reload_by_signal_waits_as_well(machine):
    """The notify-reload drop-in (253 and newer): systemctl reload returns when the new ones serve."""
    if machine.suite == "bookworm":
        pytest.skip("systemd 252 has no Type=notify-reload")
    folder = "/etc/systemd/system/preforkd.service.d"
    machine.run(
        f"mkdir -p {folder}; cp /usr/share/doc/preforkd/examples/notify-reload.conf {folder}/; "
        "systemctl daemon-reload"
    )
    machine.configure(ECHO)
    machine.run("systemctl start preforkd.service")
    machine.run("systemctl reload preforkd")
    assert '"generation": 2' in machine.run("preforkctl status --json")
    assert machine.show("preforkd", "ActiveState") == "active"
    machine.configure(ECHO + "wrokers: 3\n")
    # The protocol has no word for a failure; the status line has.
    machine.run("systemctl reload preforkd")
    assert "wrokers" in machine.run("systemctl show preforkd -p StatusText")
