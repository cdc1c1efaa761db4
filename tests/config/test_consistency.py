"""Settings that contradict each other, or need another one."""

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
    ("proxy: {headers: forwarded}", "proxy.headers", "list its addresses in proxy.trusted"),
    ("http: {healthy: healthy}", "http.healthy", "/-/healthy"),
    ("http: {ready: '/a?b'}", "http.ready", "/-/healthy"),
    ("http: {healthy: /h}\napp: {check: '/h?x'}", "app.check", "a path of the application's"),
    ("app: {target: 'stream:a:b', warm_up: [/]}", "app.warm_up", "name functions"),
    (
        "app: {target: 'asgi:a:b'}\nmemory: {refork: {after: 5 requests}}",
        "memory.refork.after",
        "leave it out",
    ),
    ("workers: {count: 4, max: 8}", "workers.count", "leave one of them out"),
    ("workers: {min: 4}", "workers.min", "set workers.max as well"),
    ("workers: {spare: 4}", "workers.spare", "set workers.max as well"),
    ("workers: {min: 9, max: 8}", "workers.min", "write no more than max"),
    ("workers: {spare: 9, max: 8}", "workers.spare", "write no more than max"),
    ("http: {max_body: 2M, spool_total: 1M}", "http.spool_total", "no less than http.max_body"),
    ("timeouts: {slow: 5s, request: 5s}", "timeouts.slow", "write less than timeouts.request"),
]


@pytest.mark.parametrize(("text", "setting", "hint"), WRONG)
def test_a_contradiction_is_told_where_it_was_written(tmp_path, text, setting, hint):
    """With file, line, the setting that is to blame, and what to do."""
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


def test_what_fits_together_is_not_told(tmp_path):
    """Each of these settings with the one that it needs."""
    path = tmp_path / "f.yaml"
    path.write_text(RIGHT)
    sources.load(str(path), {})
    assert list(contradictions(Settings(), (), {})) == []


def test_a_certificate_in_a_credential_is_one():
    """Its text may not be known here."""
    settings = Settings(listen=[ListenSettings(address=":1", tls=True)])
    assert [one.setting for one in contradictions(settings, (), {})] == ["listen[0].tls"]
    assert list(contradictions(settings, {"tls.certificate"}, {})) == []
