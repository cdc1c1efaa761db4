"""What the translations share; whole configurations are in test_command."""

import pytest

from preforkd.cli.convert import translating
from preforkd.cli.convert.draft import Draft
from preforkd.cli.convert.given import Given
from preforkd.errors import Place

GIVEN = Given("x", Place("f"))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:8000", "0.0.0.0:8000"),
        ("9000", ":9000"),
        ("localhost", "localhost:8000"),
        ("[::1]", "[::1]:8000"),
        ("tcp://[::]:1", "[::]:1"),
        ("unix:/run/preforkd/a", "unix:/run/preforkd/a"),
        ("unix:///run/preforkd/a", "unix:/run/preforkd/a"),
        ("/run/preforkd/a", "unix:/run/preforkd/a"),
        ("unix:a.sock", "unix:/srv/site/a.sock"),
        ("fd://3", None),
    ],
)
def test_addresses(text, address):
    """In every form of the other servers."""
    draft = Draft("s")
    draft.set("app.directory", "/srv/site")
    translating.add_listener(draft, text, GIVEN)
    translating.add_listener(draft, text, GIVEN)
    assert draft.listen == ([{"address": address}] if address else [])


@pytest.mark.parametrize(
    ("address", "low"),
    [(":80", True), (":1023", True), (":1024", False), (":8080", False), ("unix:/a:80", True)],
)
def test_a_low_port_needs_a_capability(address, low):
    """Ports below 1024, as systemd/examples/low-ports.conf has it."""
    draft = Draft("s")
    translating.add_listener(draft, address, GIVEN)
    assert ("AmbientCapabilities" in draft.unit) == (low and not address.startswith("unix"))


@pytest.mark.parametrize(
    ("path", "words"),
    [("/tmp/a", "PrivateTmp="), ("/run/x/a", "ListenStream=/run/x/a"), ("/run/preforkd/a", None)],
)
def test_where_a_unix_socket_can_be(path, words):
    """In the unit's own directory; elsewhere a socket unit creates it."""
    draft = Draft("s")
    translating.add_listener(draft, path, GIVEN)
    assert [words in text for _, text in draft.notes] == ([True] if words else [])


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a.b", "wsgi:a.b:application"),
        ("a:b()", "wsgi:a:b()"),
        ("a:b.c", "wsgi:a:b.c"),
        ("/a/b.wsgi", None),
        ("", None),
    ],
)
def test_applications(name, target):
    """With the server's default attribute; a file is no module."""
    draft = Draft("s")
    translating.set_target(draft, "wsgi", name, "application", GIVEN)
    assert draft.values.get("app.target") == target
    assert bool(draft.notes) == (target is None)


@pytest.mark.parametrize(
    ("program", "python"),
    [
        ("/v/bin/gunicorn", "/v/bin/python"),
        ("/usr/bin/gunicorn", None),
        ("/usr/local/bin/x", None),
        ("gunicorn", None),
    ],
)
def test_interpreters(program, python):
    """That of the virtual environment; the system's is not named."""
    draft = Draft("s")
    translating.set_python(draft, program)
    assert draft.values.get("app.python") == python


def test_a_home_directory_is_made_visible():
    """To read: the unit hides it."""
    draft = Draft("s")
    translating.set_directory(draft, "/home/a/site", GIVEN)
    assert draft.unit == {"ProtectHome": "read-only"}
    translating.set_directory(draft, "site", GIVEN)
    assert "relative" in draft.comments["app.directory"]


@pytest.mark.parametrize(
    ("target", "setting", "line"),
    [
        ("-", "stderr", None),
        ("/dev/stdout", "stderr", None),
        ("/proc/self/fd/1", "stderr", None),
        ("None", None, None),
        ("", None, None),
        ("/var/log/a/b.log", "/var/log/a/b.log", ("LogsDirectory", "a")),
        ("/var/log/b.log", "/var/log/b.log", ("ReadWritePaths", "/var/log")),
        ("/srv/b.log", "/srv/b.log", ("ReadWritePaths", "/srv")),
        ("/tmp/b.log", "/tmp/b.log", None),
        ("log/b.log", "log/b.log", None),
    ],
)
def test_access_logs(target, setting, line):
    """A file's directory is made, or made writable."""
    draft = Draft("s")
    translating.set_access_log(draft, target, GIVEN)
    assert draft.values.get("access_log.target") == setting
    assert list(draft.unit.items()) == ([line] if line else [])


def test_trusted_proxies():
    """All of them by a star, with a warning; peers on a Unix socket if there is one."""
    draft = Draft("s")
    translating.trust(draft, ["*"], GIVEN)
    assert draft.values["proxy.trusted"] == ["0.0.0.0/0", "::/0", "unix"]
    assert "every client" in draft.comments["proxy.trusted"]
    draft = Draft("s")
    draft.listen = [{"address": "unix:/a"}]
    translating.trust(draft, ["10.0.0.1"], GIVEN, headers="")
    assert draft.values == {"proxy.trusted": ["10.0.0.1", "unix"]}
    draft = Draft("s")
    translating.trust(draft, [], GIVEN)
    assert draft.values == {}


def test_environments():
    """Pairs are added; what is none is a note."""
    draft = Draft("s")
    translating.add_environment(draft, ["A=b=c", "D"], "env")
    assert draft.values == {"app.environment": {"A": "b=c"}}
    assert draft.notes == [("env", "'D' is not NAME=VALUE")]
    empty = Draft("s")
    translating.add_environment(empty, [], "env")
    assert empty.values == {}
