"""The package comes, is upgraded, and goes."""

from pathlib import Path

from tests.systemd.machine import ECHO, PACKAGE

GUIDES = Path(__file__).resolve().parent.parent.parent / "packaging/doc"


def test_the_package_comes_and_goes(machine):
    """It brings the guides; an edited file survives upgrade and removal; purge leaves nothing of ours."""
    guides = {path.name for path in GUIDES.glob("*.md")}
    assert guides == {path.name for path in (machine.root / "usr/share/doc/preforkd").glob("*.md")}
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


def test_an_upgrade_restarts_only_what_would_start(machine):
    """A file, or an application, that was broken meanwhile: what serves is left as it is, and that is said."""
    units = ("preforkd", "preforkd@shop", "preforkd@blog")
    (machine.root / "srv/blog.py").write_text("from echo import application\n")
    machine.configure(ECHO)
    machine.configure(ECHO, "preforkd/shop.yaml")
    machine.configure(ECHO.replace("echo:", "blog:"), "preforkd/blog.yaml")
    machine.run(f"systemctl start {' '.join(f'{unit}.socket {unit}.service' for unit in units)}")
    before = {unit: machine.show(unit, "MainPID") for unit in units}
    machine.configure(ECHO + "wrokers: 3\n")
    (machine.root / "srv/blog.py").write_text("import gone\n")
    said = machine.run(f"dpkg --force-confold -i {PACKAGE}")
    assert "/etc/preforkd.yaml:2:1: wrokers" in said
    assert "preforkd.service was not restarted" in said
    assert machine.show("preforkd", "MainPID") == before["preforkd"]
    assert "No module named 'gone'" in said
    assert "preforkd@blog.service was not restarted: a reload with the new code failed" in said
    assert machine.show("preforkd@blog", "MainPID") == before["preforkd@blog"]
    assert machine.show("preforkd@shop", "MainPID") != before["preforkd@shop"]
    assert "id=1" in machine.run("curl -sf '127.0.0.1:8080/?id=1'")
    ask = "curl -sf --unix-socket /run/preforkd-blog.sock 'http://x/?id=2'"
    assert "id=2" in machine.run(ask)
