"""The package comes, is upgraded, and goes."""

import pytest
from machine import ECHO, PACKAGE

pytestmark = pytest.mark.systemd


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
    machine.run("systemctl start preforkd.socket preforkd@shop.socket")
    machine.run("systemctl start preforkd.service preforkd@shop.service")
    before = {unit: machine.show(unit, "MainPID") for unit in ("preforkd", "preforkd@shop")}
    machine.configure(ECHO + "wrokers: 3\n")
    said = machine.run(f"dpkg --force-confold -i {PACKAGE}")
    assert "/etc/preforkd.yaml:2:1: wrokers" in said
    assert "preforkd.service is not restarted" in said
    assert machine.show("preforkd", "MainPID") == before["preforkd"]
    assert machine.show("preforkd@shop", "MainPID") != before["preforkd@shop"]
    assert "id=1" in machine.run("curl -sf '127.0.0.1:8080/?id=1'")
