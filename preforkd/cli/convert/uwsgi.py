"""Options of uWSGI (https://uwsgi-docs.readthedocs.io/en/latest/Options.html) as settings of preforkd."""

import os.path
from collections.abc import Callable, Collection

from preforkd.cli.convert import translating
from preforkd.cli.convert.draft import Draft
from preforkd.cli.convert.given import Given
from preforkd.cli.convert.uwsgi_file import Lines
from preforkd.core.text import printable

_SAME = {"workers": "processes", "wsgi": "module", "virtualenv": "home", "venv": "home", "pyhome": "home",
         "python-path": "pythonpath", "pp": "pythonpath", "file": "wsgi-file", "uwsgi-socket": "socket",
         "http11-socket": "http-socket", "logger": "logto", "daemonize": "logto",
         "reload-mercy": "worker-reload-mercy",
         "evil-reload-on-rss": "reload-on-rss", "cron2": "cron", "unique-cron": "cron",
         "chdir2": "chdir", "pidfile2": "pidfile",
         "py-auto-reload": "py-autoreload", "python-autoreload": "py-autoreload", "stats-server": "stats",
         "socket-timeout": "http-timeout", "smart-attach-daemon": "attach-daemon", "legion": "cron",
         "log-to": "logto", "logto2": "logto", "spooler-processes": "spooler", "mules": "mule",
         "static-map2": "static-map", "check-static": "static-map", "static-index": "static-map",
         "static-expires": "static-map", "touch-chain-reload": "touch-reload", "import": "shared-import",
         "gevent-monkey-patch": "gevent", "route-host": "route", "route-uri": "route",
         "fs-reload": "touch-reload", "lazy": "lazy-apps", "https2": "https", "log-format": "logformat",
         "limit-as": "reload-on-as"}  # fmt: skip
"""Options that mean the same for this conversion, or need the same remark."""
_DURATIONS = {"harakiri": "timeouts.request", "max-worker-lifetime": "limits.age",
              "worker-reload-mercy": "timeouts.drain", "http-timeout": "http.body_timeout"}  # fmt: skip
_NUMBERS = {
    "max-requests": "limits.requests",
    "limit-post": "http.max_body",
    "post-buffering": "http.spool",
}
_NEEDLESS = frozenset({
    "auto-procname", "autoload", "catch-exceptions", "close-on-exec", "die-on-term", "disable-write-exception",
    "enable-threads", "exit-on-reload", "hook-master-start", "http-auto-chunked", "http-raw-body",
    "ignore-sigpipe", "ignore-write-errors", "log-4xx", "log-5xx", "log-date", "log-maxsize", "log-reopen",
    "log-master", "max-requests-delta", "master", "need-app", "no-defer-accept", "no-orphans", "plugin",
    "plugins",
    "plugin-dir", "plugins-dir", "pidfile", "procname", "procname-master", "procname-prefix",
    "procname-prefix-spaced", "py-call-osafterfork", "py-call-uwsgi-fork-hooks", "reuse-port", "safe-pidfile",
    "set", "set-ph", "set-placeholder", "show-config", "single-interpreter", "so-keepalive", "so-reuseport",
    "strict", "thunder-lock", "vacuum", "wsgi-env-behavior", "wsgi-env-behaviour", "lock-engine", "max-fd",
    "master-fifo", "http-keepalive", "offload-threads", "threads-stacksize", "py-tracebacker", "memory-report",
    "protocol",
})  # fmt: skip
_PROXY = "the web server in front of it, or the application"
_OWN = "a service of its own: another unit"
_NOTES = {
    "attach-daemon": _OWN,
    "cheaper-step": "the pool grows as fast as connections wait",
    "cpu-affinity": "CPUAffinity= in the unit",
    "cron": "a .timer unit of systemd",
    "disable-logging": "",
    "emperor": "one instance for each application: preforkd@NAME.service, /etc/preforkd/NAME.yaml",
    "gevent": "a patched application (monkey.patch_all()) runs, and a worker answers one request at a time",
    "harakiri-verbose": "the stacks of a worker that exceeds timeouts.request are always logged",
    "http-websockets": "WebSockets are served for kind asgi",
    "ini": "the other file is not read: convert it as well",
    "lazy-apps": translating.PRELOAD,
    "logformat": "access_log.format is combined or json",
    "logto": "the log goes to the journal, or to standard error (log.target)",
    "log-x-forwarded-for": "proxy.trusted and proxy.headers: the log then has the client's address",
    "manage-script-name": "http.prefix is the path below which the application is mounted",
    "mule": "a service of its own: another unit, or a task queue",
    "py-autoreload": "preforkd run --watch, or preforkctl reload",
    "reload-on-as": "memory.limit bounds private memory, not address space",
    "req-logger": "access_log.target is journal, stderr or a file",
    "route": _PROXY,
    "shared-import": "app.warm_up: [MODULE:FUNCTION]",
    "spooler": "a service of its own: another unit, or a task queue",
    "static-map": f"{_PROXY} serves files (WhiteNoise for example)",
    "stats": "preforkctl status --json has the numbers",
    "touch-reload": "a .path unit of systemd can call preforkctl reload",
    "wsgi-disable-file-wrapper": "wsgi.file_wrapper is always there",
    "chroot": "RootDirectory= in the unit, with an interpreter in it",
    "add-header": _PROXY,
    "asyncio": "kind asgi",
    "reload-os-env": "app.environment is read again at a reload",
}
_PREFIXES = {"cheaper-": "cheaper-step", "route": "route", "static-": "static-map", "spooler": "spooler",
             "cache": "", "touch-": "touch-reload", "harakiri-": "", "log-": "logto", "http-": "",
             "exec-": "", "hook-": "", "gevent": "gevent", "stats-": "stats", "emperor": "emperor",
             "cron": "cron"}  # fmt: skip
_ELSEWHERE = {
    "cache": "a cache server, or the application's own",
    "exec-": "ExecStartPre= or ExecStopPost= in the unit",
    "hook-": "ExecStartPre= or ExecStopPost= in the unit, or the setting hooks",
    "harakiri-": "timeouts.request and timeouts.drain",
    "http-": "the section http",
}


def translate(draft: Draft, lines: Lines, referenced: Collection[str] = ()) -> None:
    """Put the options into the draft. ``referenced``: names that stand in values of others."""
    lines = [(_SAME.get(name, name), given) for name, given in lines]
    for name, given in lines:
        if given.computed and name not in _NEEDLESS:
            if name == "processes" and given.computed == "%k":
                draft.set("workers.count", "auto", "uWSGI: one for each CPU")
            else:
                draft.note(name, translating.COMPUTED.format(given.computed))
    known = [(name, given) for name, given in lines if not given.computed]
    last = dict(known)
    if "chdir" in last:
        translating.set_directory(draft, last["chdir"].text, last["chdir"])
    for name, given in known:
        if name in _KNOWN or name not in referenced:
            _option(draft, name, given)
    if not any(name == "processes" and given.computed for name, given in lines):
        _workers(draft, last)
    _application(draft, last)
    _listeners(draft, last)
    _owner(draft, last)
    if "disable-logging" not in last and "access_log.target" not in draft.values:
        draft.set(
            "access_log.target", "stderr", "uWSGI logs each request unless disable-logging is set"
        )


def _option(draft: Draft, name: str, given: Given) -> None:
    if name in _RULES:
        _RULES[name](draft, given)
    elif name in _DURATIONS:
        if given.number():
            draft.set(_DURATIONS[name], f"{given.number()}s")
    elif name in _NUMBERS:
        if given.number():
            draft.set(_NUMBERS[name], given.number())
    elif name in _NEEDLESS:
        if name not in draft.needless:
            draft.needless.append(name)
    elif name in _NOTES:
        if _NOTES[name] and given.flag:
            draft.note(name, _NOTES[name])
    elif name not in _TOGETHER:
        _unlisted(draft, name, given)


def _unlisted(draft: Draft, name: str, given: Given) -> None:
    for start, known in _PREFIXES.items():
        if name.startswith(start):
            draft.note(name, _NOTES.get(known) or _ELSEWHERE[start])
            return
    if name:
        draft.note(
            printable(name), "unknown to this conversion: find what it does for this service"
        )
    elif given.text.endswith((".ini", ".xml", ".yaml", ".yml", ".json")):
        draft.note("ini", f"{printable(given.text)}: {_NOTES['ini']}")
    else:
        draft.note("the command", f"{printable(given.text)!r} belongs to no option")


# --- the application and its workers -------------------------------------------------------------


def _application(draft: Draft, options: dict[str, Given]) -> None:
    callable_ = options["callable"].text if "callable" in options else "application"
    if "mount" in options and "=" in options["mount"].text:
        prefix, _, name = options["mount"].text.partition("=")
        if prefix != "/":
            draft.set("http.prefix", prefix)
        given = options["mount"]
    elif "module" in options or "wsgi-file" in options:
        given = options.get("module") or options["wsgi-file"]
        name = given.text
    else:
        draft.note("app.target", "no application is named: set app.target to wsgi:MODULE:ATTRIBUTE")
        return
    if name.endswith(".py") and ":" not in name:
        name = _module_of(draft, name, given)
    translating.set_target(draft, "wsgi", name, callable_, given)


def _module_of(draft: Draft, path: str, given: Given) -> str:
    """Return the module of a file; the application's directory becomes the file's if there is none."""
    directory = str(draft.values.get("app.directory", ""))
    if path.startswith("/"):
        if directory and os.path.commonpath([directory, path]) == os.path.normpath(directory):
            path = os.path.relpath(path, directory)
        else:
            directory, path = os.path.split(path)
            translating.set_directory(draft, directory, given)
    return os.path.normpath(path.removesuffix(".py")).replace("/", ".")


def _workers(draft: Draft, options: dict[str, Given]) -> None:
    if "threads" in options and options["threads"].number() > 1:
        draft.set("workers.threads", options["threads"].number())
    count = options["processes"].number() if "processes" in options else 1
    least = options["cheaper"].number() if "cheaper" in options else 0
    if 0 < least < count:
        draft.set("workers.min", least)
        draft.set("workers.max", count)
    else:
        comment = (
            ""
            if "processes" in options
            else "uWSGI's default; auto is two for each CPU, at least 4"
        )
        draft.set("workers.count", max(count, 1), comment)


# --- listeners, users ----------------------------------------------------------------------------

_UWSGI_PROTOCOL = (
    "its protocol is not spoken, HTTP is: in nginx write proxy_pass http://{} and proxy_set_header for "
    "Host and X-Forwarded-For, instead of uwsgi_pass and uwsgi_params"
)


def _http(draft: Draft, given: Given) -> None:
    text = given.text
    if ":" not in text and not text.isdecimal():
        text = f"unix:{text}"
    translating.add_listener(draft, text, given)


def _socket(draft: Draft, given: Given) -> None:
    _http(draft, given)
    address = str(draft.listen[-1]["address"])
    upstream = address if address.startswith("unix:") else f"HOST{address[address.rfind(':') :]}"
    draft.note("socket", _UWSGI_PROTOCOL.format(upstream))


def _https(draft: Draft, given: Given) -> None:
    address, *files = given.items
    translating.add_listener(draft, address, given)
    draft.listen[-1]["tls"] = True
    names = ("tls.certificate", "tls.key", "tls.ciphers", "tls.client_ca")
    for name, text in zip(names, files, strict=False):
        if text:
            draft.set(name, text)


def _listeners(draft: Draft, options: dict[str, Given]) -> None:
    if not draft.listen and not any("socket" in name or "http" in name for name, _ in draft.notes):
        draft.note("listen", "no socket is named: 127.0.0.1:8080 is the default")
    owner, _, group = (
        options["chown-socket"].text.partition(":") if "chown-socket" in options else ("", "", "")
    )
    mode = options["chmod-socket"].text if "chmod-socket" in options else ""
    for entry in draft.listen:
        if "listen" in options:
            entry["backlog"] = options["listen"].number()
        if entry["address"].startswith("unix:"):
            found = {
                "mode": "0666" if mode == "true" else mode and f"0{mode.lstrip('0')}",
                "owner": owner,
                "group": group,
            }
            entry.update({name: value for name, value in found.items() if value})


def _owner(draft: Draft, options: dict[str, Given]) -> None:
    user, group, mask = (
        options[name].text if name in options else "" for name in ("uid", "gid", "umask")
    )
    translating.set_owner(draft, user, group)
    if mask:
        draft.unit["UMask"] = mask.zfill(4)
    drain = options["worker-reload-mercy"].number() if "worker-reload-mercy" in options else 0
    if drain > 30:
        draft.unit["TimeoutStopSec"] = str(drain + 5)


# --- single options ------------------------------------------------------------------------------


def _buffer_size(draft: Draft, given: Given) -> None:
    size = given.number()
    draft.set("http.max_header", max(size, 1024), "uWSGI's buffer-size")
    if size > 8192:
        draft.set("http.max_line", size)
        draft.set("http.max_field", size)


def _reload_on_rss(draft: Draft, given: Given) -> None:
    if "memory.limit" not in draft.values:
        draft.set(
            "memory.limit",
            f"{given.number()}M",
            "private memory, where uWSGI counts shared pages as well",
        )


def _env(draft: Draft, given: Given) -> None:
    translating.add_environment(draft, [given.text], "env")


def _home(draft: Draft, given: Given) -> None:
    path = given.text.rstrip("/")
    if not path.startswith("/"):
        path = os.path.join(str(draft.values.get("app.directory", "")), path)
    translating.set_python(draft, f"{path}/bin/python")
    if not path.startswith("/"):
        draft.set("app.python", f"{path}/bin/python", "relative: write the whole path")


def _pythonpath(draft: Draft, given: Given) -> None:
    environment = draft.values.get("app.environment", {})
    known = [environment["PYTHONPATH"]] if "PYTHONPATH" in environment else []
    translating.add_environment(
        draft, [f"PYTHONPATH={':'.join([*known, given.text])}"], "pythonpath"
    )


_RULES: dict[str, Callable[[Draft, Given], None]] = {
    "buffer-size": _buffer_size,
    "env": _env,
    "home": _home,
    "http": _http,
    "http-socket": _http,
    "https": _https,
    "https-socket": _https,
    "pythonpath": _pythonpath,
    "reload-on-rss": _reload_on_rss,
    "socket": _socket,
}
_TOGETHER = frozenset({
    "callable", "chdir", "cheaper", "chmod-socket", "chown-socket", "gid", "listen", "module", "mount",
    "processes", "threads", "uid", "umask", "wsgi-file",
})  # fmt: skip
_KNOWN = frozenset({*_RULES, *_DURATIONS, *_NUMBERS, *_NOTES, *_NEEDLESS, *_TOGETHER})
