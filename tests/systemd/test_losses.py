"""Nothing that was accepted is lost: reloads, restarts, crashes, upgrades, idle exits under load."""

import pytest

from tests.systemd.machine import ECHO, MIXED, PACKAGE, check_nothing_lost, drop_in, kill_master


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


@pytest.mark.parametrize("address", ["127.0.0.1:8081", "/run/preforkd/web.sock"])
def test_nothing_is_lost_with_sockets_of_our_own(machine, address):
    """The store keeps what preforkd bound, TCP and Unix: restarts, crashes, upgrades refuse nobody."""
    machine.configure(ECHO + "listen: [':8081', 'unix:/run/preforkd/web.sock']\n")
    machine.run("systemctl start preforkd.service")
    loads = [machine.load(address, MIXED)]
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


SLOW = """\
import time
def application(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"] or 0))
    start_response("200 OK", [("Content-Length", "4")])
    return [b"slow"]
"""


def asked_slowly(machine, seconds):
    """Start the service, and return the client of a request that takes so long and is under way."""
    (machine.root / "srv/slow.py").write_text(SLOW)
    machine.configure("app: {target: 'wsgi:slow:application', directory: /srv}\n")
    machine.run("systemctl start preforkd.socket preforkd.service")
    asked = machine.start(f"curl -sf --max-time 60 'http://127.0.0.1:8080/?{seconds}'")
    machine.until("preforkctl status", "busy for")
    return asked


def test_a_drain_may_take_longer_than_the_unit_grants(machine):
    """TimeoutStopSec=10: a request of 25 s is finished, though systemd was reloaded meanwhile."""
    drop_in(machine, "[Service]\nTimeoutStopSec=10\n")
    asked = asked_slowly(machine, 25)
    machine.run("systemctl stop --no-block preforkd.service")
    machine.until("systemctl show preforkd -p ActiveState", "=deactivating")
    machine.run("systemctl daemon-reload")
    machine.run("systemctl daemon-reexec")
    answer, _ = asked.communicate(timeout=60)
    assert answer == "slow", machine.journal()
    machine.until("systemctl show preforkd -p ActiveState", "=inactive")
    assert machine.show("preforkd", "Result") == "success"


def test_a_killed_master_costs_no_request(machine):
    """SIGKILL: what its workers have in hand is finished before systemd ends them, and all starts again."""
    asked = asked_slowly(machine, 2)
    kill_master(machine, "preforkd")
    answer, _ = asked.communicate(timeout=60)
    assert answer == "slow", machine.journal()
    assert machine.run("curl -sf --max-time 60 http://127.0.0.1:8080/") == "slow"


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
    assert "preforkd/loop.py" in journal  # where it hung


def test_a_master_that_hangs_costs_no_request(machine):
    """What its workers have in hand when the watchdog ends it is finished, too."""
    drop_in(machine, "[Service]\nWatchdogSec=2\nTimeoutAbortSec=2\n")
    asked = asked_slowly(machine, 5)
    machine.run("kill -STOP $(systemctl show preforkd -p MainPID --value)")
    answer, _ = asked.communicate(timeout=60)
    assert answer == "slow", machine.journal()
    machine.until("systemctl show preforkd -p NRestarts", "=1")
    assert machine.run("curl -sf --max-time 60 http://127.0.0.1:8080/") == "slow"
    assert "Watchdog timeout" in machine.journal()


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
