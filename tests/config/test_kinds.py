"""Every setting with every kind of application: it has an effect, or it is refused where it was written."""

import importlib.util
import json

import pytest

from preforkd.config import sources
from preforkd.config.fields import Form, fields_of, get, leaves
from preforkd.config.kinds import KINDS
from preforkd.config.settings import ListenSettings
from preforkd.errors import ConfigurationError

ALL = ("stream", "wsgi", "asgi")
HTTP = ("wsgi", "asgi")
WSGI = ("wsgi",)
ASGI = ("asgi",)
REFORKED = ("stream", "wsgi")
SPEAKS_TLS = {"tls.certificate": "/c.pem", "listen": [{"address": ":81", "tls": True}]}
SETTINGS = {
    "app.target": (ALL, "wsgi:a:b"),
    "app.directory": (ALL, "/srv"),
    "app.python": (ALL, "/srv/bin/python"),
    "app.preload": (ALL, False),
    "app.watch": (ALL, True),
    "app.environment": (ALL, {"A": "b"}),
    "app.warm_up": (ALL, ["a:b"]),
    "app.warm_up_required": (ALL, True),
    "app.check": (HTTP, "/health"),
    "hooks": (ALL, "a:b"),
    "listen": (ALL, [":81"]),
    "workers.count": (ALL, 3),
    "workers.min": (ALL, 2, {"workers.max": 5}),
    "workers.max": (ALL, 3),
    "workers.spare": (ALL, 1, {"workers.max": 5}),
    "workers.threads": (WSGI, 2),
    "limits.requests": (ALL, 9),
    "limits.age": (ALL, 9),
    "limits.cpu": (ALL, 9),
    "limits.descriptors": (ALL, 9),
    "idle_exit": (ALL, 9),
    "timeouts.start": (ALL, 9),
    "timeouts.boot": (ALL, 9),
    "timeouts.drain": (ALL, 9),
    "timeouts.request": (ALL, 9),
    "timeouts.slow": (ALL, 9),
    "timeouts.heartbeat": (ALL, 9),
    "timeouts.drain_notice": (HTTP, 9),
    "reload.surge": (ALL, 2),
    "memory.limit": (ALL, "1G"),
    "memory.refork.after": (REFORKED, 9),
    "memory.immortal": (ALL, True),
    "http.keep_alive": (HTTP, 9),
    "http.header_timeout": (HTTP, 9),
    "http.body_timeout": (HTTP, 9),
    "http.min_rate": (HTTP, 9),
    "http.max_requests": (HTTP, 9),
    "http.max_line": (HTTP, 999),
    "http.max_field": (HTTP, 999),
    "http.max_fields": (HTTP, 9),
    "http.max_header": (HTTP, 9999),
    "http.max_body": (HTTP, 9),
    "http.spool": (WSGI, 9),
    "http.spool_total": (WSGI, "2G"),
    "http.connections": (HTTP, 9),
    "http.prefix": (HTTP, "/shop"),
    "http.server": (HTTP, "x"),
    "http.healthy": (HTTP, "/h"),
    "http.ready": (HTTP, "/r"),
    "http.answer_spool": (WSGI, 9),
    "websocket.max_size": (ASGI, 9),
    "websocket.queue": (ASGI, 9),
    "websocket.compression": (ASGI, False),
    "websocket.ping_interval": (ASGI, 9),
    "websocket.ping_timeout": (ASGI, 9),
    "websocket.close_timeout": (ASGI, 9),
    "tls.certificate": (ALL, "/c.pem", {"listen": [{"address": ":81", "tls": True}]}),
    "tls.key": (ALL, "/k.pem", SPEAKS_TLS),
    "tls.key_password": (ALL, "x", SPEAKS_TLS),
    "tls.certificates": (ALL, {"*.shop.example": "/c.pem"}, SPEAKS_TLS),
    "tls.client_ca": (ALL, "/ca.pem", {**SPEAKS_TLS, "tls.verify": "optional"}),
    "tls.verify": (ALL, "required", {**SPEAKS_TLS, "tls.client_ca": "/ca.pem"}),
    "tls.minimum_version": (ALL, "1.3", SPEAKS_TLS),
    "tls.ciphers": (ALL, "AESGCM", SPEAKS_TLS),
    "proxy.trusted": (
        ALL,
        ["10.0.0.0/8"],
        {"listen": [{"address": ":81", "proxy_protocol": True}]},
    ),
    "proxy.headers": (
        HTTP,
        "forwarded",
        {
            "proxy.trusted": ["10.0.0.0/8"],
            "listen": [{"address": ":81", "proxy_protocol": True}],
        },
    ),
    "proxy.parameters": (
        HTTP,
        ["for", "host"],
        {
            "proxy.trusted": ["10.0.0.0/8"],
            "proxy.headers": "forwarded",
            "listen": [{"address": ":81", "proxy_protocol": True}],
        },
    ),
    "log.level": (ALL, "debug"),
    "log.target": (ALL, "stderr"),
    "access_log.target": (HTTP, "/var/log/x"),
    "access_log.format": (HTTP, "json", {"access_log.target": "stderr"}),
    "control.socket": (ALL, "/run/x"),
    "control.mode": (ALL, "0600"),
    "control.group": (ALL, "adm"),
}
"""The kinds for which a setting has an effect, a value that is not its default, and what it requires."""

UNIX = {"address": "unix:/run/x"}
OF_LISTENERS = {
    "address": {"address": ":81"},
    "name": {"address": ":81", "name": "x"},
    "backlog": {"address": ":81", "backlog": 9},
    "mode": {**UNIX, "mode": "0600"},
    "owner": {**UNIX, "owner": "root"},
    "group": {**UNIX, "group": "root"},
    "tls": {"address": ":81", "tls": True},
    "proxy_protocol": {"address": ":81", "proxy_protocol": True},
}
FOR_LISTENERS = {"proxy.trusted": ["10.0.0.0/8"], "tls.certificate": "/c.pem"}


def test_only_a_kind_without_an_event_loop_can_be_reforked():
    """One reason for the setting, the command and the worker; it names the kind."""
    assert tuple(name for name, kind in KINDS.items() if not kind.refork_refusal) == REFORKED
    assert "kind asgi" in KINDS["asgi"].refork_refusal


@pytest.mark.parametrize("kind", ALL)
def test_every_module_to_preload_exists(kind):
    """A misspelled name would be ignored, like a library that is not installed."""
    for name in (*KINDS[kind].modules, *KINDS[kind].handshake_modules):
        if name.startswith("preforkd."):
            assert importlib.util.find_spec(name) is not None


def written(settings):
    """Return the settings of dotted paths as a file, a line for each section."""
    whole = {}
    for path, value in settings.items():
        place = whole
        *sections, name = path.split(".")
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in whole.items())


def line_of(text, path):
    """Return the number of the line of a setting's section."""
    names = [line.partition(":")[0] for line in text.splitlines()]
    return names.index(path.partition(".")[0]) + 1


def problems_of(path, text):
    """Return the settings and places that are refused in a file with this text."""
    path.write_text(text)
    try:
        sources.load(str(path), {})
    except ConfigurationError as error:
        return [(problem.setting, problem.place.line) for problem in error.problems]
    return []


def test_the_table_has_every_setting():
    """A new setting needs a row, with a value that is not its default."""
    assert list(SETTINGS) == [leaf.path for leaf in leaves()]
    assert list(OF_LISTENERS) == [field.name for field in fields_of(ListenSettings)]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_has_an_effect_or_is_refused(tmp_path, setting, kind):
    """Refused with file and line, and nothing else is; its default is never refused."""
    kinds, value, *needs = SETTINGS[setting]
    target = f"{kind}:a:b" if setting != "app.target" else value
    text = written({"app.target": target, **(needs[0] if needs else {}), setting: value})
    path = tmp_path / "f.yaml"
    found = problems_of(path, text)
    judged = [
        one for one in found if one[0] == setting or one[0] not in (needs[0] if needs else ())
    ]
    assert judged == ([] if kind in kinds else [(setting, line_of(text, setting))])
    field = next(leaf for leaf in leaves() if leaf.path == setting)
    if not found:
        assert get(sources.load(str(path), {}).settings, setting) != field.default
    if field.form not in {Form.LISTEN, Form.NAMES, Form.LIST} and setting != "app.target":
        plain = written({"app.target": target, setting: field.write(field.default)})
        assert problems_of(path, plain) == []


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("name", OF_LISTENERS)
def test_settings_of_listeners_apply_to_every_kind(tmp_path, name, kind):
    """TLS and the PROXY protocol of streams included."""
    needs = FOR_LISTENERS if name in {"tls", "proxy_protocol"} else {}
    plain = [{"address": ":82", "tls": True, "proxy_protocol": True}] if needs else []
    text = written({"app.target": f"{kind}:a:b", "listen": [OF_LISTENERS[name], *plain], **needs})
    assert problems_of(tmp_path / "f.yaml", text) == []


STREAM = {"app.target": "stream:a:b", "http.header_timeout": 9, "http.connections": 9}


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        # A stream's openings have a deadline and a bound; without any there is nothing to bound.
        (STREAM, ["http.header_timeout", "http.connections"]),
        ({**STREAM, "tls.certificate": "/c.pem", "listen": [{"address": ":81", "tls": True}]}, []),
        # What belongs to systemd's socket, or to Unix sockets.
        ({"listen": [{"name": "web", "backlog": 9}]}, ["listen[0].backlog"]),
        ({"listen": [{"name": "web", "mode": "0600"}]}, ["listen[0].mode"]),
        ({"listen": [{"address": ":81", "mode": "0600"}]}, ["listen[0].mode"]),
        ({"listen": [{"address": ":81", "owner": "a"}]}, ["listen[0].owner"]),
        ({"listen": [{"address": ":81", "group": "a"}]}, ["listen[0].group"]),
        # One setting for which another is missing.
        ({"tls.certificate": "/c.pem"}, ["tls.certificate"]),
        ({"tls.key": "/k.pem"}, ["tls.key"]),
        ({"tls.key_password": "x"}, ["tls.key_password"]),
        ({"tls.certificates": {"a": "/c.pem"}}, ["tls.certificates"]),
        ({"tls.minimum_version": "1.3"}, ["tls.minimum_version"]),
        ({"tls.client_ca": "/c", "tls.verify": "required"}, ["tls.client_ca", "tls.verify"]),
        ({**SPEAKS_TLS, "tls.client_ca": "/ca.pem"}, ["tls.client_ca"]),
        ({**SPEAKS_TLS, "tls.verify": "optional"}, ["tls.verify"]),
        ({**SPEAKS_TLS, "tls.ciphers": "A", "tls.minimum_version": "1.3"}, ["tls.ciphers"]),
        ({"proxy.trusted": ["10.0.0.1"]}, ["proxy.trusted"]),
        ({"access_log.format": "json"}, ["access_log.format"]),
        ({"access_log.format": "json", "access_log.target": "journal"}, ["access_log.format"]),
        ({"control.socket": "off", "control.group": "adm"}, ["control.group"]),
        ({"control.socket": "off", "control.mode": "0600"}, ["control.mode"]),
    ],
)  # fmt: skip
def test_a_setting_that_needs_another_one(tmp_path, settings, refused):
    """Without that one it has no effect, and is refused."""
    found = problems_of(tmp_path / "f.yaml", written(settings))
    assert sorted(setting for setting, _ in found) == sorted(refused)
    assert all(line for _, line in found)


def test_the_effective_kind_is_checked(tmp_path):
    """That of the command line overrides the file's; without a target, nothing is checked by kind."""
    path = tmp_path / "f.yaml"
    path.write_text("http: {max_body: 1M}\napp: {warm_up: [/]}\n")
    sources.load(str(path), {})
    sources.load(str(path), {"app.target": "wsgi:a:b"})
    with pytest.raises(ConfigurationError) as caught:
        sources.load(str(path), {"app.target": "stream:a:b"})
    assert [str(problem.place) for problem in caught.value.problems] == [
        f"{path}:1:18",
        f"{path}:2:16",
    ]


def test_an_option_for_one_run_does_not_require_another_file(tmp_path):
    """Listening elsewhere by --listen, in plain text, needs no other file."""
    path = tmp_path / "f.yaml"
    path.write_text("listen: [{address: ':1', tls: true}]\ntls: {certificate: /c.pem}\n")
    sources.load(str(path), {"listen": ["127.0.0.1:8080"]})
