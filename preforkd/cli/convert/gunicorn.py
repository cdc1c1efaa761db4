"""Options of gunicorn (https://docs.gunicorn.org/en/stable/settings.html) as settings of preforkd."""

from collections.abc import Callable

from preforkd.cli.convert import translating
from preforkd.cli.convert.draft import Draft, variables
from preforkd.cli.convert.given import Given, Options
from preforkd.core.text import printable
from preforkd.errors import Place

_NUMBERS = {
    "threads": "workers.threads",
    "websocket_max_message_size": "websocket.max_size",
    "max_requests": "limits.requests",
    "limit_request_line": "http.max_line",
    "limit_request_fields": "http.max_fields",
    "limit_request_field_size": "http.max_field",
}
_TEXTS = {
    "root_path": "http.prefix",
    "keyfile": "tls.key",
    "certfile": "tls.certificate",
    "ca_certs": "tls.client_ca",
}
_LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "critical": "error",
}
_DEFAULT_TIMEOUT = 30
_NEEDLESS = frozenset({
    "capture_output", "check_config", "daemon", "default_proc_name", "disable_redirect_access_to_syslog",
    "control_socket_disable", "do_handshake_on_connect", "enable_backlog_metric",
    "enable_stdio_inheritance", "initgroups", "max_requests_jitter", "pidfile",
    "print_config", "proc_name", "reuse_port", "sendfile", "spew", "suppress_ragged_eofs", "worker_connections",
    "worker_tmp_dir",
})  # fmt: skip
_LOCAL = ("127.", "localhost:", "[::1]:", "unix:")
_TRUSTED = (
    "by default gunicorn believes X-Forwarded-Proto of a proxy on this machine; set proxy: {trusted: [127.0.0.1, "
    "unix], headers: x-forwarded} if there is one"
)
_LOGGING = (
    "the application's own logging goes to the journal unchanged: configure it in the application"
)
_STRICT = "preforkd refuses such requests always"
_HOOKS = "move the function to a module of the application, named by the setting hooks: {}"
_NOTES = {
    "errorlog": "the log goes to the journal, or to standard error (log.target)",
    "access_log_format": "access_log.format is combined or json",
    "logger_class": _LOGGING,
    "logconfig": _LOGGING,
    "logconfig_dict": _LOGGING,
    "logconfig_json": _LOGGING,
    "syslog": "the log goes to the journal, which syslog daemons read",
    "syslog_addr": "the log goes to the journal, which syslog daemons read",
    "syslog_prefix": "SyslogIdentifier= in the unit",
    "syslog_facility": "SyslogFacility= in the unit",
    "statsd_host": "preforkctl status --json has the numbers",
    "statsd_prefix": "preforkctl status --json has the numbers",
    "dogstatsd_tags": "preforkctl status --json has the numbers",
    "reload": "preforkd run --watch, or preforkctl reload",
    "reload_extra_files": "a .path unit of systemd can call preforkctl reload",
    "reload_engine": "preforkctl reload",
    "tmp_upload_dir": "TMPDIR in app.environment: the directory of spooled bodies",
    "secure_scheme_headers": "proxy.headers: x-forwarded reads X-Forwarded-Proto only",
    "forwarder_headers": "proxy.headers and proxy.parameters select what is read",
    "header_map": _STRICT,
    "permit_obsolete_folding": _STRICT,
    "strip_header_spaces": _STRICT,
    "permit_unconventional_http_method": _STRICT,
    "permit_unconventional_http_version": _STRICT,
    "casefold_http_method": _STRICT,
    "ssl_version": "tls.minimum_version is 1.2, or 1.3",
    "paste": "make a module whose attribute is the loaded application: loadapp('config:FILE')",
    "raw_paste_global_conf": "make a module whose attribute is the loaded application",
    "on_starting": "ExecStartPre= in the unit, or zygote_loaded of the setting hooks",
    "on_reload": _HOOKS.format("zygote_loaded (a reload loads a new generation)"),
    "when_ready": _HOOKS.format("zygote_loaded"),
    "pre_fork": _HOOKS.format("zygote_loaded (once, not before each fork)"),
    "post_fork": _HOOKS.format("after_fork, or worker_started"),
    "post_worker_init": _HOOKS.format("worker_started"),
    "worker_int": _HOOKS.format("worker_leaving"),
    "worker_abort": "the stacks of a worker that is killed are in the log (timeouts.request)",
    "pre_exec": "preforkctl reload replaces all processes but the master",
    "pre_request": _HOOKS.format("request_begun(environ), for kind wsgi"),
    "post_request": _HOOKS.format("request_ended(environ, status), for kind wsgi"),
    "child_exit": _HOOKS.format("worker_leaving (a worker that is killed does not call it)"),
    "worker_exit": _HOOKS.format("worker_leaving"),
    "nworkers_changed": "the log has each change of the pool",
    "on_exit": "ExecStopPost= in the unit",
    "ssl_context": "the section tls; certificates for several names: tls.certificates",
    "asgi_disconnect_grace_period": "no equal: the application receives http.disconnect at once",
    "asgi_lifespan": "the lifespan protocol is used if the application supports it",
    "asgi_loop": "uvloop is used where it is installed",
    "http_parser": "there is one parser",
    "control_socket": "control.socket is the socket of preforkctl",
    "control_socket_mode": "control.mode",
    "protocol": "HTTP only: use proxy_pass instead of uwsgi_pass in nginx",
    "uwsgi_allow_ips": "HTTP only: use proxy_pass instead of uwsgi_pass in nginx",
    **dict.fromkeys(
        (
            "http_protocols",
            "http2_cleartext",
            "http2_max_concurrent_streams",
            "http2_initial_window_size",
            "http2_max_frame_size",
            "http2_max_header_list_size",
        ),
        "the proxy in front of it speaks HTTP/2",
    ),
    **dict.fromkeys(
        (
            "dirty_apps",
            "dirty_workers",
            "dirty_timeout",
            "dirty_threads",
            "dirty_graceful_timeout",
            "on_dirty_starting",
            "dirty_post_fork",
            "dirty_worker_init",
            "dirty_worker_exit",
        ),
        "a service of its own: another unit, or a task queue",
    ),
    "import *": "the other file is not read: convert it as well",
}


def translate(draft: Draft, options: Options, unused: set[str]) -> None:
    """Put the options into the draft. ``unused``: names in the file that the file itself does not use."""
    known = {name: given for name, given in options.items() if name in SETTINGS}
    if strange := sorted(unused - set(known)):
        draft.note(", ".join(strange), "no settings of gunicorn: it ignored them, and so does this")
    kind = _kind(draft, known)
    if "asgi" in (known["wsgi_app"].text if "wsgi_app" in known else ""):
        kind = "asgi"
    _workers(draft, known)
    known = translating.refuse_computed(draft, known)
    for name in sorted(known, key=lambda name: list(SETTINGS).index(name)):
        given = known[name]
        if name in _NUMBERS:
            _number(draft, name, given, kind)
        elif name in _TEXTS and given.text:
            draft.set(_TEXTS[name], given.text, variables(given.variables))
        elif name in _NEEDLESS:
            draft.needless.append(name)
        elif name in _NOTES and given.text and given.value is not False:
            draft.note(name, _NOTES[name])
        elif name in _RULES:
            _RULES[name](draft, given)
    _application(draft, known, kind)
    _timeout(draft, options, kind)
    if not ("bind" in options and options["bind"].computed):
        _listeners(draft, known)


# --- the application and its workers -------------------------------------------------------------


def _kind(draft: Draft, options: Options) -> str:
    given = options.get("worker_class")
    if given is None:
        return "wsgi"
    name = given.text.lower()
    if "uvicorn" in name or "asgi" in name or "hypercorn" in name:
        return "asgi"
    if "gevent" in name or "eventlet" in name:
        draft.note(
            "worker_class",
            f"{printable(given.text)}: a patched application (monkey.patch_all()) runs, and a worker answers one "
            "request at a time: set more workers, or workers.threads without the patch",
        )
    elif name not in {"sync", "gthread", ""} or given.computed:
        known = printable(given.text or given.computed)
        draft.note(
            "worker_class", f"{known} is unknown: compare the kind in app.target, wsgi or asgi"
        )
    return "wsgi"


def _workers(draft: Draft, options: Options) -> None:
    given = options.pop("workers", None)
    if given is None:
        draft.set("workers.count", 1, "gunicorn's default; auto is two for each CPU, at least 4")
    elif "cpu_count" in given.computed or "nproc" in given.computed:
        draft.set("workers.count", "auto", f"computed from the CPUs: {given.computed}")
    elif given.computed:
        draft.note("workers", translating.COMPUTED.format(given.computed))
    else:
        draft.set("workers.count", max(given.number(), 1), variables(given.variables))


def _application(draft: Draft, options: Options, kind: str) -> None:
    given = options.get("wsgi_app")
    if given is None:
        text = f"no application is named: set app.target to {kind}:MODULE:ATTRIBUTE"
        draft.note("app.target", text)
        return
    if "preload_app" not in options or not options["preload_app"].flag:
        draft.note("preload_app", translating.PRELOAD)
    translating.set_target(draft, kind, given.text, "application", given)


def _number(draft: Draft, name: str, given: Given, kind: str) -> None:
    if name == "threads" and kind == "asgi":
        draft.note("threads", "no effect for kind asgi, as under gunicorn")
    elif given.number() == 0 and name.startswith("limit_"):
        draft.note(name, f"0, no limit: there is always one; {_NUMBERS[name]} sets it")
    elif given.number() > (name == "threads"):
        draft.set(_NUMBERS[name], given.number(), variables(given.variables))


def _timeout(draft: Draft, options: Options, kind: str) -> None:
    given = options.get("timeout", Given(_DEFAULT_TIMEOUT, Place("gunicorn's default")))
    if given.computed:
        return
    seconds = given.number()
    comment = "gunicorn's default" if "timeout" not in options else variables(given.variables)
    worker_class = options["worker_class"].text if "worker_class" in options else "sync"
    if kind == "wsgi" and worker_class == "sync" and "workers.threads" not in draft.values:
        if seconds:
            draft.set("timeouts.request", f"{seconds}s", comment)
    elif seconds != _DEFAULT_TIMEOUT:
        comment = (
            comment or "of the worker's loop, as gunicorn's is; timeouts.request is a request's"
        )
        draft.set("timeouts.heartbeat", f"{seconds}s", comment)


# --- listeners and proxies -----------------------------------------------------------------------


def _listeners(draft: Draft, options: Options) -> None:
    given = options.get("bind")
    if given is None:
        given = Given("127.0.0.1:8000", Place("gunicorn's default"))
        draft.comments["listen"] = "gunicorn's default, if $PORT is not set"
    for text in given.items:
        translating.add_listener(draft, text, given)
    proxied = options["proxy_protocol"].flag if "proxy_protocol" in options else False
    for entry in draft.listen:
        if "backlog" in options:
            entry["backlog"] = options["backlog"].number()
        if "tls.certificate" in draft.values:
            entry["tls"] = True
        if proxied:
            entry["proxy_protocol"] = True
    if proxied:
        given = options.get("proxy_allow_ips", Given("127.0.0.1,::1", Place("gunicorn's default")))
        translating.trust(draft, given.items, given, headers="")
    elif "proxy_allow_ips" in options:
        draft.needless.append("proxy_allow_ips")
    if "forwarded_allow_ips" in options:
        given = options["forwarded_allow_ips"]
        translating.trust(draft, given.items, given)
    elif any(entry["address"].startswith(_LOCAL) for entry in draft.listen):
        draft.note("forwarded_allow_ips", _TRUSTED)


# --- single options ------------------------------------------------------------------------------


def _keepalive(draft: Draft, given: Given) -> None:
    draft.set("http.keep_alive", f"{given.number()}s", variables(given.variables))


def _graceful_timeout(draft: Draft, given: Given) -> None:
    seconds = given.number()
    draft.set("timeouts.drain", f"{seconds}s", variables(given.variables))
    if seconds > 30:
        draft.unit["TimeoutStopSec"] = str(seconds + 5)


def _chdir(draft: Draft, given: Given) -> None:
    translating.set_directory(draft, given.text, given)


def _raw_env(draft: Draft, given: Given) -> None:
    pairs = given.value if isinstance(given.value, list) else [given.text]
    translating.add_environment(draft, [str(pair) for pair in pairs], "raw_env")


def _pythonpath(draft: Draft, given: Given) -> None:
    translating.add_environment(draft, [f"PYTHONPATH={':'.join(given.items)}"], "pythonpath")


def _user(draft: Draft, given: Given) -> None:
    translating.set_owner(draft, given.text)


def _group(draft: Draft, given: Given) -> None:
    translating.set_owner(draft, "", given.text)


def _umask(draft: Draft, given: Given) -> None:
    octal = given.text.lstrip("0o") if isinstance(given.value, str) else f"{given.number():o}"
    draft.unit["UMask"] = octal.zfill(4)


def _loglevel(draft: Draft, given: Given) -> None:
    level = _LEVELS.get(given.text.lower())
    if level is None:
        draft.note("loglevel", f"{printable(given.text)} is unknown")
    elif level != "info":
        draft.set("log.level", level, variables(given.variables))


def _accesslog(draft: Draft, given: Given) -> None:
    translating.set_access_log(draft, given.text, given)


def _cert_reqs(draft: Draft, given: Given) -> None:
    value = given.text.rpartition("_")[2].lower()
    verify = {"1": "optional", "optional": "optional", "2": "required", "required": "required"}
    if value in verify:
        draft.set("tls.verify", verify[value])


def _ciphers(draft: Draft, given: Given) -> None:
    if given.text:
        draft.set("tls.ciphers", given.text, "for TLS 1.2")


_RULES: dict[str, Callable[[Draft, Given], None]] = {
    "accesslog": _accesslog,
    "cert_reqs": _cert_reqs,
    "chdir": _chdir,
    "ciphers": _ciphers,
    "graceful_timeout": _graceful_timeout,
    "group": _group,
    "keepalive": _keepalive,
    "loglevel": _loglevel,
    "pythonpath": _pythonpath,
    "raw_env": _raw_env,
    "umask": _umask,
    "user": _user,
}
_TOGETHER = (
    "backlog", "bind", "forwarded_allow_ips", "preload_app", "proxy_allow_ips", "proxy_protocol", "timeout",
    "worker_class", "workers", "wsgi_app",
)  # fmt: skip
SETTINGS = dict.fromkeys((*_RULES, *_NUMBERS, *_TEXTS, *_NOTES, *sorted(_NEEDLESS), *_TOGETHER))
"""Every setting of gunicorn that is known, in the order in which they are translated."""
