"""Options of ``run`` and ``config`` that set settings, and the file that they name."""

import re
from types import SimpleNamespace as Options
from typing import TYPE_CHECKING

from preforkd.config.configuration import DEFAULT_PATH
from preforkd.errors import ConfigurationError, Place, Problem

if TYPE_CHECKING:
    import argparse

_FILE = re.compile(r"[^:]+\.ya?ml")


def add(parser: "argparse.ArgumentParser") -> None:
    """Add the options to a command."""
    parser.add_argument(
        "target",
        nargs="?",
        metavar="TARGET|FILE",
        help="application to run, KIND:MODULE:ATTRIBUTE, for example wsgi:mysite.wsgi:application (app.target); "
        "or a configuration, FILE.yaml",
    )
    for flags, metavar, text in (
        (("--config",), "FILE", "default: " + DEFAULT_PATH),
        (("--workers",), "N", "number of workers, or auto (workers)"),
        (("--directory",), "DIR", "directory of the application (app.directory)"),
        (
            ("--python",),
            "EXE",
            "interpreter or virtual environment of the application (app.python)",
        ),
        (("--prefix",), "PATH", "path below which the application is mounted (http.prefix)"),
        (
            ("--tls",),
            "CERT[,KEY]",
            "serve TLS on all listeners with this certificate (tls, listen)",
        ),
        (("--socket",), "PATH", "control socket, or off (control.socket)"),
    ):
        parser.add_argument(*flags, metavar=metavar, help=text)
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        action="append",
        help="host:port, [v6]:port, :port or unix:/path; may be repeated (listen)",
    )
    parser.add_argument(
        "--access-log",
        metavar="FORMAT",
        nargs="?",
        const="",
        help="log each request on standard error, as combined (default) or json (access_log)",
    )
    parser.add_argument(
        "--watch",
        action="store_const",
        const="true",
        help="reload when a file of the application or the configuration changes (app.watch)",
    )
    parser.add_argument(
        "--log-level", dest="level", metavar="LEVEL", help="lowest level that is logged (log.level)"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        help="any setting, for example timeouts.request=30s or 'app.warm_up=[/, /admin/]'; may be repeated",
    )


def file_of(options: Options) -> str | None:
    """Return the configuration file that is named; None: the default. Raises ConfigurationError."""
    file: str | None = options.config
    if options.target and _FILE.fullmatch(options.target):
        if file is not None:
            message = f"two configuration files are named: {options.target} and {file}"
            raise ConfigurationError([Problem(Place("command line"), "", message)])
        return str(options.target)
    return file


def overrides(options: Options) -> dict[str, str | list[str]]:
    """Return the options by the names that `preforkd.config.sources` gives them. Raises ConfigurationError."""
    target = options.target
    given: dict[str, str | list[str] | None] = {
        "app.target": None if target and _FILE.fullmatch(target) else target,
        "app.directory": options.directory,
        "app.python": options.python,
        "app.watch": options.watch,
        "listen": options.listen,
        "workers.count": options.workers,
        "http.prefix": options.prefix,
        "--tls": options.tls,
        "log.level": options.level,
        "access_log.target": None if options.access_log is None else "stderr",
        "access_log.format": options.access_log or None,
        "control.socket": options.socket,
    }
    for pair in options.set or ():
        name, sign, value = pair.partition("=")
        if not (name and sign and name.isascii()):
            hint = "for example timeouts.request=30s"
            problem = Problem(Place("--set"), "", f"{pair!r} is not KEY=VALUE", hint)
            raise ConfigurationError([problem])
        given[f"--set {name.strip()}"] = value
    return {setting: value for setting, value in given.items() if value is not None}
