"""The command line of gunicorn or uWSGI, with what stands before it: variables, wrappers, an interpreter."""

import argparse
import os.path
import re
from typing import Any, NoReturn

from msgspec import Struct

from preforkd.cli.convert import gunicorn
from preforkd.cli.convert.given import Given, Options, failed
from preforkd.errors import Place

_PROGRAMS = re.compile(r"(gunicorn|uwsgi)[\w.-]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_DEFAULTED = re.compile(r"\$\{(\w+):?-([^{}]*)\}")
_VARIABLE = re.compile(r"\$\w|\$\{|\$\(|`")
_PLACE = Place("the command")
_UNREMARKABLE = frozenset({"exec", "export", "env", "run", "--", "-m", "nohup", "command"})
_FLAGS: dict[str, tuple[str, ...]] = {
    "access_log_format": ("--access-logformat",),
    "accesslog": ("--access-logfile",),
    "bind": ("-b", "--bind"),
    "config": ("-c", "--config"),
    "daemon": ("-D", "--daemon"),
    "enable_stdio_inheritance": ("-R", "--enable-stdio-inheritance"),
    "errorlog": ("--error-logfile", "--log-file"),
    "group": ("-g", "--group"),
    "control_socket_disable": ("--no-control-socket",),
    "dirty_apps": ("--dirty-app",),
    "reload_extra_files": ("--reload-extra-file", "--reload-extra-files"),
    "uwsgi_allow_ips": ("--uwsgi-allow-from",),
    "keepalive": ("--keep-alive",),
    "limit_request_field_size": ("--limit-request-field_size", "--limit-request-field-size"),
    "logconfig": ("--log-config",),
    "logconfig_json": ("--log-config-json",),
    "loglevel": ("--log-level",),
    "paste": ("--paste", "--paster"),
    "pidfile": ("-p", "--pid"),
    "preload_app": ("--preload",),
    "proc_name": ("-n", "--name"),
    "proxy_allow_ips": ("--proxy-allow-from",),
    "raw_env": ("-e", "--env"),
    "raw_paste_global_conf": ("--paste-global",),
    "sendfile": ("--no-sendfile",),
    "syslog": ("--log-syslog",),
    "syslog_addr": ("--log-syslog-to",),
    "syslog_facility": ("--log-syslog-facility",),
    "syslog_prefix": ("--log-syslog-prefix",),
    "timeout": ("-t", "--timeout"),
    "umask": ("-m", "--umask"),
    "user": ("-u", "--user"),
    "worker_class": ("-k", "--worker-class"),
    "workers": ("-w", "--workers"),
}
_SWITCHES = frozenset({
    "capture_output", "casefold_http_method", "check_config", "control_socket_disable",
    "enable_backlog_metric", "daemon", "disable_redirect_access_to_syslog",
    "do_handshake_on_connect", "enable_stdio_inheritance", "initgroups", "permit_obsolete_folding",
    "permit_unconventional_http_method", "permit_unconventional_http_version", "preload_app", "print_config",
    "reload", "reuse_port", "sendfile", "spew", "strip_header_spaces", "suppress_ragged_eofs",
    "syslog",
})  # fmt: skip
_REPEATED = frozenset(
    {"bind", "raw_env", "reload_extra_files", "raw_paste_global_conf", "dirty_apps"}
)


class Command(Struct, frozen=True):
    """A command: the server, its arguments, its program's path, variables set for it, and what stands before it.

    ``wrappers``: the words that start it; ``before``: commands that run before it.
    """

    server: str
    arguments: list[str]
    program: str
    environment: list[str]
    wrappers: list[str]
    before: list[str]


def split(words: list[str]) -> Command:
    """Return the parts of a command. Raises ConfigurationError if it starts neither gunicorn nor uWSGI."""
    environment: list[str] = []
    wrappers: list[str] = []
    before: list[str] = []
    for index, word in enumerate(words):
        if found := _PROGRAMS.fullmatch(os.path.basename(word)):
            program = word
            if index > 1 and words[index - 1] == "-m":
                program = words[index - 2]
                wrappers = wrappers[:-1]
            arguments = words[index + 1 :]
            return Command(found[1], arguments, program, environment, wrappers, before)
        if word.endswith(";") or word in {"&&", "||"}:
            last = word.rstrip(";&|")
            environment += [last] if _ASSIGNMENT.fullmatch(last) else []
            wrappers += [] if _ASSIGNMENT.fullmatch(last) else [last]
            before.append(" ".join(wrappers).strip())
            wrappers = []
        elif _ASSIGNMENT.fullmatch(word):
            environment.append(word)
        elif word not in _UNREMARKABLE and not (index == 0 and word.endswith(":")):
            wrappers.append(word)
    raise failed(
        _PLACE,
        "neither gunicorn nor uwsgi is in it",
        "give a gunicorn.conf.py, a uwsgi.ini, or a command in quotes: 'gunicorn -w 4 mysite.wsgi'",
    )


def given(text: Any, option: str) -> Given:
    """Return an option's value, with ``${NAME:-DEFAULT}`` replaced; with other variables it is computed."""
    if not isinstance(text, str):
        return Given(text, Place(option))
    names = tuple(found[1] for found in _DEFAULTED.finditer(text))
    text = _DEFAULTED.sub(lambda found: found[2], text)
    if _VARIABLE.search(text):
        return Given(None, Place(option), text)
    return Given(text, Place(option), variables=names)


def gunicorn_options(arguments: list[str]) -> tuple[Options, list[str]]:
    """Return the options of gunicorn's command line, and arguments that are none of them.

    The application is ``wsgi_app``, the file ``config``. Raises ConfigurationError.
    """
    parsed, rest = _parser().parse_known_args(arguments)
    options: Options = {}
    for name, value in vars(parsed).items():
        if value in (None, []):
            continue
        if isinstance(value, list):
            each = [given(text, name) for text in value]
            computed = ", ".join(one.computed for one in each if one.computed)
            texts = [one.text for one in each if not one.computed]
            names = tuple(variable for one in each for variable in one.variables)
            options[name] = Given(None if computed else texts, Place(name), computed, names)
        else:
            options[name] = given(value, name)
    return options, rest


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise failed(_PLACE, message)


def _parser() -> _Parser:
    parser = _Parser(prog="gunicorn", add_help=False)
    parser.add_argument("wsgi_app", nargs="?")
    for name in (*gunicorn.SETTINGS, "config"):
        if name in {"wsgi_app", "import *"}:
            continue
        flags = _FLAGS.get(name, (f"--{name.replace('_', '-')}",))
        if name in _SWITCHES:
            parser.add_argument(*flags, dest=name, action="store_const", const=True)
        elif name == "proxy_protocol":
            parser.add_argument(*flags, dest=name, nargs="?", const=True)
        elif name in _REPEATED:
            parser.add_argument(*flags, dest=name, action="append")
        else:
            parser.add_argument(*flags, dest=name)
    return parser
