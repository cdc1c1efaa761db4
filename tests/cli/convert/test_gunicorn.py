"""Options of gunicorn; whole configurations are in test_command."""

import pytest

from preforkd.cli.convert import command, gunicorn


def draft(options):
    """Return the draft of a command of gunicorn."""
    return command.convert(f"gunicorn {options} app:app")


@pytest.mark.parametrize(
    ("options", "setting", "value"),
    [
        ("-k gthread --timeout 9", "timeouts.heartbeat", "9s"),
        ("-k sync --timeout 9", "timeouts.request", "9s"),
        ("--threads 2 --timeout 9", "timeouts.heartbeat", "9s"),
        ("--timeout 0", "timeouts.request", None),
        ("-k gevent", "timeouts.heartbeat", None),
        ("-k asgi", "app.target", "asgi:app:app"),
        ("-k uvicorn_worker.UvicornWorker --threads 4", "workers.threads", None),
        ("-w 0", "workers.count", 1),
        ("-w $(nproc)", "workers.count", "auto"),
        ("-w $N", "workers.count", None),
        ("--max-requests 0", "limits.requests", None),
        ("--log-level critical", "log.level", "error"),
        ("--log-level INFO", "log.level", None),
        ("--root-path /shop", "http.prefix", "/shop"),
        ("--websocket-max-message-size 1024", "websocket.max_size", 1024),
        ("--keep-alive 5", "http.keep_alive", "5s"),
        ("--pythonpath a,b", "app.environment", {"PYTHONPATH": "a:b"}),
        ("--cert-reqs 1", "tls.verify", "optional"),
        ("--cert-reqs CERT_REQUIRED", "tls.verify", "required"),
        ("--cert-reqs 0", "tls.verify", None),
    ],
)
def test_a_setting(options, setting, value):
    """None: it keeps its default."""
    assert draft(options).values.get(setting) == value


@pytest.mark.parametrize(
    ("text", "mask"), [("027", "0027"), ("0o27", "0027"), ("0", "0000"), ("22", "0022")]
)
def test_the_umask_is_octal(text, mask):
    """As gunicorn reads it from a command line."""
    assert draft(f"-m {text}").unit["UMask"] == mask


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ("--reload", "reload"),
        ("-k tornado", "worker_class"),
        ("-k eventlet", "worker_class"),
        ("--log-level loud", "loglevel"),
        ("--limit-request-line 0", "limit_request_line"),
        ("-b $X", "bind"),
        ("--http2-cleartext x", "http2_cleartext"),
        ("-b localhost:1", "forwarded_allow_ips"),
        ("--permit-obsolete-folding", "permit_obsolete_folding"),
    ],
)
def test_a_note(options, option):
    """What has no equal is named."""
    assert option in [name for name, _ in draft(options).notes]


def test_preloading_is_no_difference():
    """--preload is what preforkd does; without it there is a note."""
    assert "preload_app" not in [name for name, _ in draft("--preload").notes]
    assert "preload_app" in [name for name, _ in draft("").notes]


def test_tls_the_proxy_protocol_and_the_backlog_are_of_each_listener():
    """Trust is gunicorn's default then."""
    found = draft("-b :1 -b :2 --certfile c --keyfile k --backlog 9 --proxy-protocol --preload")
    entry = {"backlog": 9, "tls": True, "proxy_protocol": True}
    assert found.listen == [{"address": ":1", **entry}, {"address": ":2", **entry}]
    assert found.values["proxy.trusted"] == ["127.0.0.1", "::1"]


def test_no_setting_stands_in_two_tables():
    """Each has one translation."""
    tables = [
        gunicorn._RULES,
        gunicorn._NUMBERS,
        gunicorn._TEXTS,
        gunicorn._NOTES,
        gunicorn._NEEDLESS,
        gunicorn._TOGETHER,
    ]
    assert sum(map(len, tables)) == len(gunicorn.SETTINGS)
