"""The installed package, driven by systemctl and watched with journalctl."""

import re

import pytest

from tests.systemd.machine import DJANGO, ECHO, NC, TREE, Machine, drop_in, finish, run
from tests.worker import certificate


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
    place = "/etc/preforkd.yaml:5:1: wrokers: unknown setting (did you mean workers?)"
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
    assert "is serving" in machine.journal("PREFORKD_INSTANCE=blog")


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


def test_the_control_socket_speaks_varlink(machine):
    """systemd's own client reads the interface and calls it (varlinkctl, 255 and newer)."""
    machine.run("systemctl start preforkd.service")
    if machine.call("command -v varlinkctl").returncode:
        assert machine.suite == "bookworm"
        return
    path = "/run/preforkd/io.preforkd.Manager"
    assert "io.preforkd.Manager" in machine.run(f"varlinkctl info {path}")
    assert "method Reload(" in machine.run(f"varlinkctl introspect {path} io.preforkd.Manager")
    assert "method GetInfo(" in machine.run(f"varlinkctl introspect {path} org.varlink.service")
    assert '"serving"' in machine.run(
        f"varlinkctl call {path} io.preforkd.Manager.GetStatus '{{}}'"
    )
    answer = machine.run(f"varlinkctl call {path} io.preforkd.Manager.Reload '{{\"fresh\": true}}'")
    assert "generation 2 is serving" in answer


def test_who_may_look_and_who_may_command(machine):
    """By default root and the service's user; by control.mode all may look; control.group commands.

    The service's user is no member of that group, and gives it nothing but the socket's file list.
    """
    machine.configure("control: {group: adm}\n")
    drop_in(machine, (TREE / "systemd/examples/control-group.conf").read_text())
    machine.run("systemctl start preforkd.service")
    as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups preforkctl"
    as_adm = "setpriv --reuid=65534 --regid=65534 --groups=4 preforkctl --system"
    path = "/run/preforkd/io.preforkd.Manager"
    assert machine.run(f"stat -c '%a %U' {path}").strip() == "660 preforkd"
    unnamed = machine.call(f"{as_nobody} stop")
    assert unnamed.returncode == 75, unnamed.stdout
    assert "--system belongs to another user" in unnamed.stdout
    refused = machine.call(f"{as_nobody} --system status")
    assert refused.returncode == 77, refused.stdout
    assert "4 of 4 workers ready" in machine.run(f"{as_adm} status")
    machine.run(f"{as_adm} reload")
    machine.configure("control: {mode: 0666}\n")
    machine.run("preforkctl reload")
    assert "4 of 4 workers ready" in machine.run(f"{as_nobody} --system status")
    for who in (as_nobody + " --system", as_adm):
        refused = machine.call(f"{who} reload")
        assert refused.returncode == 77, refused.stdout


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


CLIENT = """\
[Unit]
DefaultDependencies=no
After=preforkd.socket
[Service]
ExecStart=/usr/bin/python3 -c "import socket; socket.create_connection(('127.0.0.1', 8080)).recv(1)"
[Install]
WantedBy=sockets.target
"""


@pytest.mark.parametrize("fault", ["wrokers: 3\n", "app: {target: 'wsgi:no_such:module'}\n"])
def test_a_boot_ends_though_the_service_cannot_start(image, tmp_path, fault):
    """A client waits in the socket, so that the service is started again and again: the boot ends."""

    def prepare(root):
        (root / "etc/preforkd.yaml").write_text(fault)
        (root / "etc/systemd/system/client.service").write_text(CLIENT)
        run(
            "systemctl", f"--root={root}", "enable", "client", "preforkd.socket", "preforkd.service"
        )

    machine = Machine(image, tmp_path, prepare)
    try:
        assert machine.show("multi-user.target", "ActiveState") == "active"
        # systemd says so in a moment between two jobs, and each start that fails is one.
        machine.until("journalctl -b _PID=1 -g 'Startup finished' -o cat", "Startup finished")
        # All that while it was tried, and the client was kept.
        machine.until("journalctl -b -u preforkd -g 'the service cannot start' -o cat | wc -l", "3")
        assert machine.show("client.service", "ActiveState") == "active"
        machine.configure(ECHO)
        machine.until("systemctl show preforkd -p ActiveState", "=active")
    finally:
        machine.stop()


def test_units_are_enabled_one_by_one(machine):
    """The service without the socket, which would have it listen elsewhere after the next boot."""
    enabled = (
        "systemctl is-enabled preforkd.socket preforkd.service preforkd@x.socket preforkd@x.service"
    )
    machine.run("systemctl enable preforkd.service preforkd@x.service")
    assert machine.call(enabled).stdout.split() == ["disabled", "enabled"] * 2
    machine.run("systemctl enable preforkd.socket preforkd@x.socket")
    assert machine.call(enabled).stdout.split() == ["enabled"] * 4


def test_an_address_that_no_socket_serves_is_told(machine):
    """By systemctl status and preforkctl status, as long as it is written."""
    machine.configure(f"{ECHO}listen: 127.0.0.1:8081\n")
    machine.run("systemctl start preforkd.socket preforkd.service")
    note = "listen[0]: 127.0.0.1:8081 is not served: systemd passed 127.0.0.1:8080 instead"
    assert note in machine.run("systemctl status preforkd")
    assert note in machine.run("preforkctl status")
    machine.configure(f"{ECHO}listen: 127.0.0.1:8080\n")
    machine.run("systemctl reload preforkd")
    assert "is not served" not in machine.run("systemctl status preforkd; preforkctl status")


@pytest.mark.parametrize(
    ("listen", "reason"),
    [
        ("ListenDatagram=127.0.0.1:8080", "write ListenStream= instead of ListenDatagram="),
        ("ListenSequentialPacket=/run/x.sock", "ListenStream= instead of ListenSequentialPacket="),
    ],
)
def test_only_sockets_that_cannot_be_served(machine, listen, reason):
    """The start fails with the reason, and nothing is bound in their place."""
    drop_in(machine, f"[Socket]\nListenStream=\n{listen}\n", "preforkd.socket")
    machine.configure(ECHO)
    machine.run("systemctl start preforkd.socket")
    assert machine.call("systemctl start preforkd.service").returncode != 0
    assert machine.show("preforkd.service", "ExecMainStatus") == "78"
    assert reason in machine.journal()
    assert "listening on" not in machine.journal()


def test_accept_yes_is_named(machine):
    """Though the instance that it starts for each connection has no configuration file."""
    drop_in(machine, "[Socket]\nAccept=yes\n", "preforkd.socket")
    machine.run("systemctl start preforkd.socket")
    machine.run(
        "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8080)).recv(1)'"
    )
    machine.until(
        "journalctl -b -o cat SYSLOG_IDENTIFIER=preforkd", "write Accept=no in the socket unit"
    )


@pytest.mark.parametrize("lost", ["mv /etc/preforkd.yaml /x", ": >/etc/preforkd.yaml"])
def test_a_lost_configuration_is_no_wish_for_the_demo(machine, lost):
    """A reload is refused and all serves on; without its file the service does not start either."""
    machine.configure(ECHO + "listen: 127.0.0.1:8082\n")
    machine.run("systemctl start preforkd.service")
    machine.run(lost)
    assert machine.call("systemctl reload preforkd").returncode != 0
    assert "the last reload failed" in machine.show("preforkd", "StatusText")
    machine.run("curl -sf 'http://127.0.0.1:8082/?id=1'")
    assert machine.call("curl -sf http://127.0.0.1:8080/").returncode != 0
    machine.run("kill -HUP $(systemctl show preforkd -p MainPID --value)")
    machine.until("journalctl -u preforkd -g 'reload failed' -o cat | wc -l", "2")
    machine.run("curl -sf 'http://127.0.0.1:8082/?id=1'")
    if "mv" in lost:
        assert machine.call("systemctl restart preforkd").returncode != 0
        assert "/etc/preforkd.yaml: cannot be read: No such file" in machine.journal()
