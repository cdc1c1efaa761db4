"""Options of uWSGI; whole configurations are in test_command."""

import pytest

from preforkd.cli.convert import command, uwsgi


def draft(options):
    """Return the draft of a command of uWSGI."""
    return command.convert(f"uwsgi --disable-logging {options}")


@pytest.mark.parametrize(
    ("options", "setting", "value"),
    [
        ("-w a", "app.target", "wsgi:a:application"),
        ("-w a --callable b", "app.target", "wsgi:a:b"),
        ("-w a:b", "app.target", "wsgi:a:b"),
        ("--wsgi-file a/b.py", "app.target", "wsgi:a.b:application"),
        ("--wsgi-file ./b.py --callable x", "app.target", "wsgi:b:x"),
        ("--chdir /srv --wsgi-file /srv/a/b.py", "app.target", "wsgi:a.b:application"),
        ("--wsgi-file /srv/b.py", "app.directory", "/srv"),
        ("--mount /x=a:b", "http.prefix", "/x"),
        ("--mount /=a:b", "http.prefix", None),
        ("-p 4", "workers.count", 4),
        ("-p 4 --cheaper 2", "workers.max", 4),
        ("-p 4 --cheaper 2", "workers.count", None),
        ("-p 4 --cheaper 4", "workers.count", 4),
        ("-p $N", "workers.count", None),
        ("--threads 1", "workers.threads", None),
        ("--harakiri 0", "timeouts.request", None),
        ("--harakiri 9", "timeouts.request", "9s"),
        ("--reload-on-rss 9 --evil-reload-on-rss 99", "memory.limit", "9M"),
        ("-b 4096", "http.max_line", None),
        ("-b 4096", "http.max_header", 4096),
        ("-H /v", "app.python", "/v/bin/python"),
        ("--chdir /srv -H v", "app.python", "/srv/v/bin/python"),
        ("--pp a --pp b", "app.environment", {"PYTHONPATH": "a:b"}),
    ],
)
def test_a_setting(options, setting, value):
    """None: it keeps its default."""
    assert draft(options).values.get(setting) == value


@pytest.mark.parametrize(
    ("options", "listen"),
    [
        ("--http :1", [{"address": ":1"}]),
        ("--socket a.sock", [{"address": "unix:/run/preforkd/a.sock"}]),
        ("--socket /r/a --chmod-socket", [{"address": "unix:/r/a", "mode": "0666"}]),
        ("-s /r/a --chmod-socket=660 --chown-socket u:g -l 9",
         [{"address": "unix:/r/a", "backlog": 9, "mode": "0660", "owner": "u", "group": "g"}]),
        ("--https :2,c,k", [{"address": ":2", "tls": True}]),
    ],
)  # fmt: skip
def test_listeners(options, listen):
    """TCP and Unix, with their permissions."""
    assert draft(options).listen == listen


@pytest.mark.parametrize(
    ("options", "option", "words"),
    [
        ("-s :9", "socket", "proxy_pass http://HOST:9"),
        ("-s /r/a", "socket", "proxy_pass http://unix:/r/a"),
        ("", "listen", "127.0.0.1:8080"),
        ("", "app.target", "no application"),
        ("--frob 1", "frob", "unknown"),
        ("--cache2 name=x", "cache2", "cache server"),
        ("--static-safe /x", "static-safe", "WhiteNoise"),
        ("missing.ini", "ini", "not read"),
        ("word", "the command", "belongs to no option"),
        ("--lazy", "lazy-apps", "before the fork"),
        ("--chdir $X", "chdir", "not known"),
    ],
)
def test_a_note(options, option, words):
    """What has no equal, or is unknown, is named."""
    found = [text for name, text in draft(options).notes if name == option]
    assert found
    assert words in found[0]


def test_the_log_of_requests_is_on_by_default():
    """As uWSGI's is."""
    assert command.convert("uwsgi -w a").values["access_log.target"] == "stderr"
    assert "access_log.target" not in draft("-w a").values


def test_no_option_stands_in_two_tables():
    """Each has one translation, and each other name leads to one."""
    tables = [
        uwsgi._RULES,
        uwsgi._DURATIONS,
        uwsgi._NUMBERS,
        uwsgi._NOTES,
        uwsgi._NEEDLESS,
        uwsgi._TOGETHER,
    ]
    assert sum(map(len, tables)) == len(uwsgi._KNOWN)
    assert set(uwsgi._SAME.values()) <= uwsgi._KNOWN
    assert not set(uwsgi._SAME) & uwsgi._KNOWN
