"""The master is killed, and signals reach all processes: no reload hangs, no stop fails."""

from tests.systemd.machine import drop_in, kill_master

SLOW_TO_LOAD = """\
import time
time.sleep(float(open("/srv/seconds").read()))
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def start(machine):
    """Start a service whose application loads for as long as /srv/seconds says."""
    (machine.root / "srv/slow_to_load.py").write_text(SLOW_TO_LOAD)
    load_for(machine, 0)
    machine.configure(
        "app: {target: 'wsgi:slow_to_load:application', directory: /srv}\nworkers: 2\n"
    )
    machine.run("systemctl start preforkd.socket preforkd.service")


def load_for(machine, seconds):
    """Let the application load for so long from now on."""
    (machine.root / "srv/seconds").write_text(str(seconds))


def reload(machine):
    """Begin a reload, and return the client when the application is being loaded."""
    client = machine.start("systemctl reload preforkd")
    machine.until("preforkctl status", ", candidate, ")
    return client


def test_a_master_that_is_killed_during_a_reload(machine):
    """SIGKILL: the next one serves long before the watchdog; each kill is an error in the journal."""
    start(machine)
    for asked in (
        "systemctl reload preforkd",
        "preforkctl reload",
        "systemctl kill -s HUP preforkd",
    ):
        load_for(machine, 30)
        client = machine.start(asked)
        machine.until("preforkctl status", ", candidate, ")
        load_for(machine, 0)
        began = float(machine.run("cut -d' ' -f1 /proc/uptime"))
        kill_master(machine, "preforkd")
        # WatchdogSec= is 30 s, and the application would still load.
        assert float(machine.run("cut -d' ' -f1 /proc/uptime")) < began + 20
        client.communicate(timeout=30)
        assert machine.run("curl -sf --max-time 20 http://127.0.0.1:8080/") == "ok"
    said = machine.run("journalctl -u preforkd -p err -x --no-pager")
    assert said.count("the master was killed by SIGKILL") == 3
    assert said.count("Subject: The master was killed") == 3
    drop_in(machine, "[Service]\nWatchdogSec=1\nTimeoutAbortSec=2\n")
    machine.run("systemctl restart preforkd")
    machine.run("kill -STOP $(systemctl show preforkd -p MainPID --value)")
    machine.until(
        "journalctl -u preforkd -p err -o cat --no-pager", "no watchdog ping within WatchdogSec="
    )
    # Nor has systemd anything to say of the unit's own commands.
    assert "unset environment variable" not in machine.run("journalctl --no-pager")


def test_signals_during_a_reload(machine):
    """A stop and a restart end in success; HUP to all processes fails no reload, TERM to all no stop."""
    start(machine)
    load_for(machine, 1)
    for command in ("stop", "restart"):
        client = reload(machine)
        machine.run(f"systemctl {command} preforkd.service")
        assert machine.show("preforkd", "Result") == "success"
        client.communicate(timeout=30)
        if command == "stop":
            assert machine.show("preforkd", "StatusText") == "stopped"
            load_for(machine, 0)
            machine.run("systemctl start preforkd.service")
            load_for(machine, 1)
    for delay in (0.02, 0.1, 0.3):
        machine.run(
            f"systemctl reload preforkd & sleep {delay}; systemctl kill -s HUP preforkd; wait $!"
        )
    machine.until("preforkctl status", "preforkd 0.1.0, serving: 2 of 2")
    machine.run("systemctl kill preforkd.service")
    machine.until("systemctl show preforkd -p ActiveState", "=inactive")
    assert machine.show("preforkd", "Result") == "success"
    assert machine.journal("-u preforkd -p warning -o cat").strip() in {"", "-- No entries --"}
