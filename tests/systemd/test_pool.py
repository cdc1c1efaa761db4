"""The pool of the installed service, in its sandbox: its size, reforks, memory, requests that take too long.

One machine serves all of these; each starts the service anew, with the settings that it needs.
"""

import json
import time

import pytest

from tests.systemd.machine import MIXED, Machine, check_nothing_lost, drop_in

APP = """\
import os, time
built = []

def application(environ, start_response):
    query = environ["QUERY_STRING"]
    if not built:
        built.append(os.getpid())
    if query == "hold":
        while not os.path.exists("/srv/go"):
            time.sleep(0.02)
    elif query == "hang":
        time.sleep(600)
    body = f"{query} built by {built[0]}, {os.getpid()} serves\\n".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
POOLED = "app: {target: 'wsgi:pooled:application', directory: /srv}\n"
AS_NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups"


@pytest.fixture(scope="module")
def shared(image, tmp_path_factory):
    """One machine for all tests of this file; a FIFO tells its service of memory pressure."""
    machine = Machine(image, tmp_path_factory.mktemp(f"shared-{image.suite}"))
    try:
        (machine.root / "srv/pooled.py").write_text(APP)
        machine.run("mkfifo /run/pressure; chown preforkd /run/pressure")
        drop_in(machine, "[Service]\nEnvironment=MEMORY_PRESSURE_WATCH=/run/pressure\n")
        yield machine
    finally:
        machine.stop()


@pytest.fixture
def machine(shared):
    """The machine; nothing of an earlier test runs."""
    shared.run("rm -f /srv/go; systemctl stop preforkd.service preforkd@shop.service")
    return shared


def start(machine, settings, unit="preforkd"):
    """Start a service that serves the application with these settings."""
    name = unit.removeprefix("preforkd@")
    path = "preforkd.yaml" if name == unit else f"preforkd/{name}.yaml"
    machine.configure(POOLED + settings, path)
    machine.run(f"systemctl start {unit}.socket {unit}.service")


def status(machine, option=""):
    """Return what the master says."""
    return json.loads(machine.run(f"preforkctl {option} status --json"))


def until(machine, wanted, option=""):
    """Return the first status for which this is true."""
    deadline = time.monotonic() + 60
    while not wanted(seen := status(machine, option)):
        assert time.monotonic() < deadline, f"{seen}\n{machine.journal()}"
    return seen


def pids_of(seen):
    """Return the pids of the workers in a status."""
    return {row["pid"] for row in seen["workers"]}


def entry(machine, words, match="", unit="preforkd"):
    """Return the first entry of the journal since a service's start that matches and says this."""
    invocation = machine.show(unit, "InvocationID")
    read = f"journalctl --no-pager -o json _SYSTEMD_INVOCATION_ID={invocation} {match}"
    deadline = time.monotonic() + 40
    while True:
        found = [json.loads(line) for line in machine.run(read).splitlines()]
        for one in found:
            if words in one["MESSAGE"]:
                return one
        assert time.monotonic() < deadline, f"{words}: {found}\n{machine.journal()}"


def check_order_of_victims(machine):
    """Demand that the kernel would take any worker before the zygote and the master."""
    seen = status(machine)
    pids = [*pids_of(seen), seen["generations"][0]["zygote_pid"], seen["pid"]]
    text = machine.run("cat " + " ".join(f"/proc/{pid}/oom_score_adj" for pid in pids))
    *workers, zygote, master = map(int, text.split())
    assert len(workers) == seen["target"]
    assert set(workers) == {master + 200}
    assert zygote == master


def test_everybody_may_look_at_the_memory(machine):
    """The sandbox lets the master read what each process takes; commands are root's."""
    start(machine, "workers: 3\ncontrol: {mode: 0666}\n")
    for who in ("", f"RUNTIME_DIRECTORY=/run/preforkd {AS_NOBODY}"):
        table = machine.run(f"{who} preforkctl memory")
        assert [line.split()[0] for line in table.splitlines()[1:6]] == [
            *("worker", "worker", "worker"),
            *("zygote", "master"),
        ]
        assert "M (sum of PSS); as 3 unrelated processes" in table
        assert "not read" not in table
        assert "3 of 3 workers ready" in machine.run(f"{who} preforkctl status")
    read = json.loads(machine.run("preforkctl memory --json"))
    assert read["problems"] == []
    assert all(process["uss"] > 0 for process in read["processes"])
    for command in ("scale +1", "refork", "stop"):
        refused = machine.call(f"{AS_NOBODY} preforkctl --system {command}")
        assert refused.returncode == 77, refused.stdout
    assert status(machine)["target"] == 3


def test_the_master_is_small(machine):
    """At most 30 MB resident and 12 MB of its own, also when all that it can do has been asked for once."""
    start(machine, "workers: 8\n")
    machine.run(
        "preforkctl status; preforkctl reload --fresh; preforkctl scale +2; preforkctl refork"
    )
    machine.run("systemctl reload preforkd")
    until(machine, lambda seen: seen["ready"] == 10 and len(seen["generations"]) == 1)
    *_, master = json.loads(machine.run("preforkctl memory --json"))["processes"]
    print(f"{machine.suite}: {master}")
    assert master["role"] == "master"
    assert master["rss"] <= 30e6
    assert master["uss"] <= 12e6


def test_a_refork_under_load_loses_nothing(machine):
    """All workers share what the warmest had built; the kernel's victims are workers before and after."""
    start(machine, "workers: 3\n")
    check_order_of_victims(machine)
    first = pids_of(status(machine))
    load = machine.load("127.0.0.1:8080", MIXED)
    until(machine, lambda seen: sum(row["requests"] for row in seen["workers"]) > 100)
    for _ in range(2):
        before = pids_of(status(machine))
        assert "was forked from a worker" in machine.run("preforkctl refork")
        until(
            machine,
            lambda seen, before=before: (
                seen["ready"] == len(seen["workers"]) == 3 and not before & pids_of(seen)
            ),
        )
    until(machine, lambda seen: sum(row["requests"] for row in seen["workers"]) > 100)
    check_nothing_lost([load])
    check_order_of_victims(machine)
    answer = machine.run("curl -sf http://127.0.0.1:8080/")
    assert int(answer.partition("built by ")[2].partition(",")[0]) in first
    machine.until(
        "journalctl -u preforkd -x --no-pager", "Subject: A zygote is forked from a warm worker"
    )


@pytest.mark.parametrize("unit", ["preforkd", "preforkd@shop"])
def test_a_pool_grows_while_connections_wait(machine, unit):
    """TCP and Unix, from systemd: it grows to its most, no more, and everybody is answered."""
    start(machine, "workers: {min: 2, max: 5}\n", unit)
    option = "--instance shop" if "@" in unit else ""
    address = "--unix-socket /run/preforkd-shop.sock" if option else ""
    ask = f"curl -sf --max-time 60 {address} http://127.0.0.1:8080/?hold"
    clients = [machine.start(ask) for _ in range(9)]
    until(machine, lambda seen: seen["target"] == seen["ready"] == 5, option)
    machine.run("touch /srv/go")
    assert all("hold built by" in client.communicate(timeout=60)[0] for client in clients)
    entry(machine, "no worker is idle and", "PREFORKD_SIZE=5", unit)


def test_short_memory_makes_an_elastic_pool_smaller(machine):
    """What systemd names speaks: idle workers above the least leave at once, and that is said."""
    start(machine, "workers: {min: 2, max: 8}\n")
    assert machine.run("preforkctl scale 5") == "5 workers\n"
    assert machine.run("preforkctl scale +1") == "6 workers\n"
    before = pids_of(until(machine, lambda seen: seen["by_hand"] and seen["ready"] == 6))
    # What was given by hand is no reason to keep more than are needed, once the pool decides again.
    machine.run("preforkctl scale auto; timeout 20 sh -c 'echo > /run/pressure'")
    after = until(machine, lambda seen: seen["target"] == len(seen["workers"]) == 2)
    assert pids_of(after) < before
    entry(machine, "the pool shrinks from 6 to 2 workers: memory is short", "PREFORKD_SIZE=2")
    explained = machine.run("journalctl -u preforkd -x --no-pager")
    for subject in ("Memory is short", "The size of the pool has changed"):
        assert f"Subject: {subject}" in explained


def test_the_heap_is_immortal_where_python_can(machine):
    """The sandbox forbids writable code only; Python 3.11 is told so, and what served serves on."""
    start(machine, "workers: 2\n")
    machine.configure(POOLED + "workers: 2\nmemory:\n  immortal: true\n")
    reload = machine.call("systemctl reload preforkd")
    answer = machine.run("curl -sf http://127.0.0.1:8080/?asked")
    assert "asked built by" in answer
    if machine.suite == "bookworm":
        assert reload.returncode != 0
        assert status(machine)["generation"] == 1
        said = machine.run("systemctl show preforkd -p StatusText")
        assert "/etc/preforkd.yaml:4:13: memory.immortal: the heap cannot be made immortal" in said
        assert "it needs CPython 3.12 or later, this is 3.11" in said
        return
    assert reload.returncode == 0, reload.stdout
    assert status(machine)["generation"] == 2
    entry(machine, "objects are immortal now", "PREFORKD_GENERATION=2")
    assert "not read" not in machine.run("preforkctl memory")


def test_a_request_that_takes_too_long_is_found_in_the_journal(machine):
    """By its own line: the worker's stacks, with the worker's fields, and an explanation."""
    start(machine, "workers: 2\ntimeouts: {request: 1s}\n")
    ask = "curl -s -o /dev/null -w '%{http_code}' --max-time 60 'http://127.0.0.1:8080/?hang'"
    assert machine.run(ask) == "504"
    match = "'PREFORKD_REQUEST=GET /?hang HTTP/1.1'"
    told = entry(machine, "GET /?hang HTTP/1.1 took longer than 1 s; stacks:", match)
    assert "/srv/pooled.py" in told["MESSAGE"]
    assert told["PRIORITY"] == "4"
    slot, pid = told["PREFORKD_WORKER"], int(told["OBJECT_PID"])
    assert told["MESSAGE"].startswith(f"worker {slot} (pid {pid}, generation 1) will be killed")
    assert told["PREFORKD_GENERATION"] == "1"
    explained = machine.run(f"journalctl -x --no-pager -u preforkd {match}")
    assert f"Subject: Worker {slot} was killed: the application took too long" in explained
    # It is that one that is killed, and another takes its seat.
    until(machine, lambda seen: seen["ready"] == 2 and pid not in pids_of(seen))
    assert "id=2" in machine.run("curl -sf 'http://127.0.0.1:8080/?id=2'")


def test_the_access_log_is_in_the_journal(machine):
    """access_log.target: journal: each request is an entry, with fields of its own."""
    start(machine, "workers: 2\naccess_log: {target: journal}\n")
    machine.run("curl -sf -X POST -d 12345 'http://127.0.0.1:8080/cart?id=7'")
    told = entry(machine, "", "'PREFORKD_TARGET=/cart?id=7'")
    assert told["MESSAGE"] == "127.0.0.1 POST /cart?id=7 HTTP/1.1 200"
    assert (told["PREFORKD_METHOD"], told["PREFORKD_STATUS"]) == ("POST", "200")
    assert (told["PREFORKD_REMOTE"], told["PREFORKD_GENERATION"]) == ("127.0.0.1", "1")
    assert told["SYSLOG_IDENTIFIER"] == "preforkd"
    assert int(told["PREFORKD_DURATION_USEC"]) > 0
    assert int(told["PREFORKD_BYTES"]) > 0
    by_slot = {str(row["slot"]): row["pid"] for row in status(machine)["workers"]}
    assert by_slot[told["PREFORKD_WORKER"]] == int(told["_PID"])


AHEAD = """python3 -c "
import socket
requests = [f'GET /ahead/{number} HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n' for number in range(9)]
with socket.create_connection(('127.0.0.1', 8080), 20) as sock:
    sock.sendall(''.join(requests).encode())
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(9999):
        pass
"
"""


def test_requests_that_were_sent_ahead_are_entries_each(machine):
    """What one turn of a worker's loop answers is sent together; nothing of it is lost."""
    start(machine, "workers: 1\naccess_log: {target: journal}\n")
    machine.run(AHEAD)
    for number in range(9):
        told = entry(machine, "", f"'PREFORKD_TARGET=/ahead/{number}'")
        assert told["MESSAGE"] == f"127.0.0.1 GET /ahead/{number} HTTP/1.1 200"
