"""Settings that contradict each other, have no effect, or require another one."""

import pytest

from preforkd.config import sources
from preforkd.config.consistency import contradictions
from preforkd.config.settings import ListenSettings, Settings
from preforkd.errors import ConfigurationError

WRONG = [
    ("listen: [{address: ':1', tls: true}]", "listen[0].tls", "set tls.certificate"),
    (
        "listen: [':1', {address: ':2', proxy_protocol: true}]",
        "listen[1].proxy_protocol",
        "trusted",
    ),
    (
        "proxy: {headers: forwarded}",
        "proxy.headers",
        "list the addresses of the proxy in proxy.trusted",
    ),
    ("http: {healthy: healthy}", "http.healthy", "/-/healthy"),
    ("http: {ready: '/a?b'}", "http.ready", "/-/healthy"),
    ("http: {healthy: /h}\napp: {check: '/h?x'}", "app.check", "use a path of the application"),
    ("app: {target: 'stream:a:b', warm_up: [/]}", "app.warm_up", "name functions"),
    (
        "app: {target: 'asgi:a:b'}\nmemory: {refork: {after: 5 requests}}",
        "memory.refork.after",
        "remove it",
    ),
    ("app: {preload: false}\nmemory: {immortal: true}", "memory.immortal", "app.preload: false"),
    (
        "app: {target: 'asgi:a:b', preload: false}\nmemory: {refork: {after: 5 requests}}",
        "memory.refork.after",
        "app.preload: false",
    ),
    ("workers: {count: 4, max: 8}", "workers.count", "remove one of them"),
    ("workers: {min: 4}", "workers.min", "set workers.max as well"),
    ("workers: {spare: 4}", "workers.spare", "set workers.max as well"),
    ("workers: {min: 9, max: 8}", "workers.min", "set at most workers.max"),
    ("workers: {spare: 9, max: 8}", "workers.spare", "set at most workers.max"),
    ("http: {max_body: 2M, spool_total: 1M}", "http.spool_total", "set at least http.max_body"),
    ("timeouts: {slow: 5s, request: 5s}", "timeouts.slow", "set less than timeouts.request"),
]


@pytest.mark.parametrize(("text", "setting", "hint"), WRONG)
def test_a_contradiction_is_reported_where_it_was_written(tmp_path, text, setting, hint):
    """With file, line, the setting at fault, and a hint."""
    path = tmp_path / "f.yaml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigurationError) as caught:
        sources.load(str(path), {})
    (problem,) = caught.value.problems
    assert problem.setting == setting
    assert hint in problem.hint
    assert problem.place.source == str(path)
    assert problem.place.line == len(text.splitlines())


RIGHT = """\
listen: [{address: ':1', tls: true, proxy_protocol: true}]
tls: {certificate: /c.pem}
proxy: {trusted: [10.0.0.0/8], headers: forwarded}
http: {healthy: /-/healthy, ready: '/ready/~x;y=1', max_body: 2M, spool_total: 2M}
app: {target: 'wsgi:a:b', warm_up: [/, 'a:b']}
memory: {refork: {after: 5 requests}}
workers: {min: 2, max: 8, spare: 2}
timeouts: {slow: 2s, request: 5s}
"""


def test_consistent_settings_have_no_problem(tmp_path):
    """Each of these settings, with the one that it requires."""
    path = tmp_path / "f.yaml"
    path.write_text(RIGHT)
    sources.load(str(path), {})
    assert list(contradictions(Settings(), (), {})) == []


def test_a_certificate_from_a_credential_counts():
    """Even if its value is unknown here."""
    settings = Settings(listen=[ListenSettings(address=":1", tls=True)])
    assert [one.setting for one in contradictions(settings, (), {})] == ["listen[0].tls"]
    assert list(contradictions(settings, {"tls.certificate"}, {})) == []


@pytest.fixture
def blamed(tmp_path):
    """Return how to learn which settings of a text are blamed."""

    def blamed(text, options=None):
        path = tmp_path / "f.yaml"
        path.write_text(text + "\n")
        try:
            sources.load(str(path), options or {})
        except ConfigurationError as error:
            return [problem.setting for problem in error.problems]
        return []

    return blamed


SPEAKS_TLS = "tls: {certificate: /c}\nlisten: {address: ':1', tls: true}"
TRUSTED = "proxy: {trusted: [127.0.0.1]"


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        # A certificate that no listener uses, and a key without one.
        ("tls: {certificate: /c}", ["tls.certificate"]),
        ("tls: {certificate: /c}\nlisten: [':1', {address: ':2', tls: true}]", []),
        ("tls: {key: /k}", ["tls.key"]),
        ("tls: {key: /k, certificate: /c}\nlisten: {address: ':2', tls: true}", []),
        # Proxies of which nothing is used.
        (TRUSTED + "}", ["proxy.trusted"]),
        (TRUSTED + ", headers: forwarded}", []),
        (TRUSTED + "}\nlisten: [':1', {address: ':2', proxy_protocol: true}]", []),
        # Parameters that no header carries.
        ("proxy: {parameters: [for, host]}", ["proxy.parameters"]),
        (TRUSTED + ", headers: forwarded, parameters: [for, host]}", []),
        (TRUSTED + ", headers: forwarded, parameters: [port, prefix]}", ["proxy.parameters"] * 2),
        (TRUSTED + ", headers: x-forwarded, parameters: [port, prefix]}", []),
        # A format that no target uses.
        ("access_log: {target: 'off', format: json}", ["access_log.format"]),
        ("access_log: {target: journal, format: json}", ["access_log.format"]),
        ("access_log: {target: stderr, format: json}", []),
        ("access_log: {target: 'off'}", []),
        # A control socket that there is not.
        ("control: {socket: 'off', mode: 0600}", ["control.mode"]),
        ("control: {socket: 'off', group: web}", ["control.group"]),
        ("control: {socket: 'off'}", []),
        ("control: {socket: /run/x, mode: 0600, group: web}", []),
        # What holds for a Unix socket only, or for no socket of systemd's.
        ("listen: {address: ':1', mode: 0600, owner: me}", ["listen[0].mode", "listen[0].owner"]),
        ("listen: {address: ':1', group: us, backlog: 5}", ["listen[0].group"]),
        ("listen: {name: web, backlog: 5, group: us}", ["listen[0].backlog", "listen[0].group"]),
        ("listen: {address: 'unix:/x', mode: 0600, owner: me, group: us, backlog: 5}", []),
        # Settings of HTTP have no effect for a stream; some have when a connection has an opening.
        ("app: {target: 'stream:a:b'}\nhttp: {header_timeout: 3s}", ["http.header_timeout"]),
        ("app: {target: 'stream:a:b'}\nhttp: {connections: 9}", ["http.connections"]),
        ("app: {target: 'stream:a:b'}\nhttp: {connections: 9}\n" + SPEAKS_TLS, []),
        ("app: {target: 'stream:a:b'}\nhttp: {max_body: 3M}", ["http.max_body"]),
        ("app: {target: 'wsgi:a:b'}\nhttp: {max_body: 3M, header_timeout: 3s}", []),
        ("app: {target: 'asgi:a:b'}\nworkers: {threads: 2}", ["workers.threads"]),
        ("app: {target: 'wsgi:a:b'}\nworkers: {threads: 2}", []),
        # Sizes and times, exactly at their bounds.
        ("workers: {min: 8, max: 8, spare: 8}", []),
        ("workers: {max: 8}", []),
        ("workers: {count: auto, max: 8}", []),
        ("http: {max_body: 1M, spool_total: 1048575}", ["http.spool_total"]),
        ("http: {max_body: 1M, spool_total: 1048576}", []),
        ("http: {max_body: 1M, spool_total: 0}", []),
        ("timeouts: {request: 5s, slow: 4999ms}", []),
        ("timeouts: {request: 5s, slow: 5s}", ["timeouts.slow"]),
        ("timeouts: {slow: 5s}", []),
        # Probes: a path without a query, and none of the application's.
        ("http: {healthy: /h, ready: h}", ["http.ready"]),
        ("http: {ready: '/a b'}", ["http.ready"]),
        ("http: {ready: '/a?b'}", ["http.ready"]),
        ("http: {ready: '/a#b'}", ["http.ready"]),
        ("http: {ready: '/a=b@c~'}", []),
        ("http: {ready: /h}\napp: {check: '/h'}", ["app.check"]),
        ("http: {ready: /h}\napp: {check: '/h/i'}", []),
    ],
)  # fmt: skip
def test_each_contradiction_and_what_is_none(blamed, text, settings):
    """The settings to blame, and the same ones where they have an effect."""
    assert sorted(blamed(text)) == settings


def test_the_kind_of_an_application_that_the_file_does_not_name_is_unknown(blamed):
    """The service's command line may set another target, so nothing is checked against the built-in demo."""
    text = "http: {header_timeout: 3s}\nworkers: {threads: 2}"
    assert blamed(text) == []
    options = {"app.target": "stream:a:b"}
    assert sorted(blamed(text, options)) == ["http.header_timeout", "workers.threads"]


def test_an_option_for_listen_leaves_the_file_as_it_is(blamed):
    """A trial run on another port does not require the certificate to be removed from the file."""
    text = "tls: {certificate: /c}\nlisten: {address: ':1', tls: true}"
    assert blamed(text) == []
    assert blamed(text, {"listen": [":2"]}) == []
    assert blamed("tls: {certificate: /c}\nlisten: ':1'") == ["tls.certificate"]
