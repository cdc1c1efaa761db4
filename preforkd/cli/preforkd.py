"""``preforkd run``, ``check``, ``config``, ``convert`` and ``wait-workers``.

``run`` becomes the master, which lives long: everything that only another command needs is imported in that
command, and argparse is dropped after parsing.
"""

import functools
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from types import SimpleNamespace as Options
from typing import TYPE_CHECKING

import preforkd
from preforkd.cli import lean, setting_options  # noqa: F401 - lean before anything else loads msgspec
from preforkd.cli.output import exit_statuses, run_printing
from preforkd.config import reader_process
from preforkd.config.configuration import DEFAULT_PATH, Configuration
from preforkd.core.text import printable, printable_lines
from preforkd.errors import (
    EXIT_STATUSES,
    ConfigurationError,
    ExitStatus,
    PreforkdError,
    refused,
    shortage,
)
from preforkd.linux import cgroup, environment
from preforkd.linux.sd_notify import Notifier
from preforkd.logs import catalog, logs, streams
from preforkd.logs.handlers import timestamp
from preforkd.logs.journal import stderr_is_journal

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger("preforkd.master")

_WHY_KILLED = {
    "watchdog": ": it sent no watchdog ping within WatchdogSec=",
    "timeout": ": a step exceeded its timeout in the unit",
    "oom-kill": ": the system or the unit ran out of memory",
}
"""What $SERVICE_RESULT adds to the signal's name. systemd.exec(5)"""
_MIN_LIFETIME = 2.0
"""Seconds after which a socket-activated service exits at the earliest if its start fails."""
_WORKERS_GRACE = 5.0
"""Seconds that workers get to finish their requests after the master was killed."""
_CLEAN = frozenset({"INT", "TERM", "USR2"})
"""Signals that request a stop: a master that they kill before it handles them has ended as requested."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parse(arguments)
    try:
        return run_printing(lambda: int(options.command(options)))
    except PreforkdError as error:
        _print_error(error)
        return error.exit_status
    except OSError as error:
        if not shortage(error):
            raise
        _print_error(failure := refused("preforkd", error))
        return failure.exit_status


def _print_error(error: PreforkdError, head: str = "preforkd:") -> None:
    if isinstance(error, ConfigurationError):
        for problem in error.problems:
            print(printable(f"{head} {problem}"), file=sys.stderr)
        if error.hint:
            print(printable(f"hint: {error.hint}"), file=sys.stderr)
    else:
        print(printable_lines(f"{head} {error.report()}"), file=sys.stderr)


# --- the commands --------------------------------------------------------------------------------


def _run(options: Options) -> int:
    _reset_signals()
    streams.open_closed()
    began = time.monotonic()
    activated = "LISTEN_FDS" in os.environ
    notifier = Notifier.from_environment(os.environ)
    try:
        status = _serve(options)
    except (PreforkdError, OSError) as caught:
        if isinstance(caught, OSError) and not shortage(caught):
            raise
        error = refused("preforkd", caught) if isinstance(caught, OSError) else caught
        _report_failed_start(error, notifier)
        status = error.exit_status
    notifier.close()
    if status and activated:
        _delay_exit(began)
    return status


def _reset_signals() -> None:
    # SIGHUP and SIGUSR1 that arrive before the master installs its handlers must not end it.
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # Signals that the parent process blocked would stay blocked, those of a stop for example.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _report_failed_start(error: PreforkdError, notifier: Notifier) -> None:
    # Started by systemd: journalctl -x explains the message, systemctl status shows it in one line.
    if stderr_is_journal(os.environ.get("JOURNAL_STREAM", "")):
        logs.configure("info", "auto")
        text = f"the service cannot start: {error.report()}"
        fields = {"MESSAGE_ID": catalog.START_FAILED.id}
        logger.critical("%s", text, extra={"journal": fields})
    else:
        _print_error(error, f"{timestamp(time.time())} preforkd[{os.getpid()}]: critical:")
    notifier.status(f"cannot start: {error.message}")


def _serve(options: Options) -> int:
    overrides = setting_options.overrides(options)
    path = setting_options.file_of(options)
    if path is not None:
        # Symbolic links on the path are resolved again at each reload.
        path = os.path.join(environment.working_directory(os.environ), path)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    # The other commands do not need the master's modules, and the master does not need the modules that
    # read the configuration: a child process does that.
    from preforkd.supervisor import main  # noqa: PLC0415

    return main.run(lambda: reader_process.load(path, overrides, credentials))


def _delay_exit(began: float) -> None:
    # The connection that activated the service still waits in the socket, so systemd starts the service
    # again at once, regardless of RestartSec= and RestartPreventExitStatus=: without a pause this would
    # repeat for ever at full speed. A stop ends the pause.
    rest = began + _MIN_LIFETIME - time.monotonic()
    if rest > 0:
        stops = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR2}
        signal.pthread_sigmask(signal.SIG_BLOCK, stops)
        signal.sigtimedwait(stops, rest)


def _check(options: Options) -> int:
    loaded = _load_here(options.file, {})
    if options.load:
        from preforkd.supervisor import check  # noqa: PLC0415

        failure = check.check_application(loaded, environment.clean(os.environ))
        if failure is not None:
            print(printable_lines(f"preforkd: {failure.report()}"), file=sys.stderr)
            return failure.blame.exit_status
    what = loaded.path or "the built-in configuration"
    print(f"{what} is valid" + (", the application loads" if options.load else ""))
    return ExitStatus.OK


def _load_here(path: str | None, options: dict[str, str | list[str]]) -> Configuration:
    from preforkd.config import sources  # noqa: PLC0415
    from preforkd.config.credentials import Credentials  # noqa: PLC0415

    credentials = Credentials(os.environ.get("CREDENTIALS_DIRECTORY"), checking=True)
    return sources.load(path, options, credentials)


def _config(options: Options) -> int:
    from preforkd.config import sources  # noqa: PLC0415

    loaded = _load_here(setting_options.file_of(options), setting_options.overrides(options))
    rows = [
        (entry.setting, printable(entry.value_text), str(entry.place or "default"))
        for entry in sources.effective(loaded)
    ]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    for setting, value, place in rows:
        print(f"{setting:<{first}}  {value:<{min(second, 40)}}  {place}")
    return ExitStatus.OK


def _convert(options: Options) -> int:
    from preforkd.cli.convert import command  # noqa: PLC0415

    draft = command.convert(options.source)
    settings = draft.write_settings()  # first: what it refuses may concern the unit
    print(draft.write_unit() if options.unit else settings, end="")
    return ExitStatus.OK


def _wait_workers(_options: Options) -> int:
    logs.configure("info", "auto")
    name = os.environ.get("EXIT_STATUS", "")
    if os.environ.get("EXIT_CODE") in {"killed", "dumped"} and name not in _CLEAN:
        result = os.environ.get("SERVICE_RESULT", "")
        text = f"the master was killed by SIG{name}{_WHY_KILLED.get(result, '')}"
        fields = {"MESSAGE_ID": catalog.MASTER_KILLED.id}
        logger.error("%s", text, extra={"journal": fields})
    # The workers finish their requests and exit; when this command returns, systemd kills those that remain.
    if left := cgroup.wait_until_alone(_WORKERS_GRACE):
        text = "%d processes still run %g s after the end of the master; systemd kills them"
        logger.warning(text, len(left), _WORKERS_GRACE)
    return ExitStatus.OK


# --- the command line ----------------------------------------------------------------------------


def _parse(arguments: Sequence[str] | None) -> Options:
    # The modules that argparse imports would stay in the master's memory for its whole life: half a MB.
    known = set(sys.modules)
    options = Options(**vars(_parser().parse_args(arguments)))
    for name in {"argparse", "gettext", "locale"} & (set(sys.modules) - known):
        del sys.modules[name]
    gc.collect()
    return options


def _parser() -> "argparse.ArgumentParser":
    import argparse  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="preforkd",
        description="A preforking server for Python under systemd.",
        epilog=_epilog(),
        # Without a width, argparse imports shutil to find it, and with that every compression module.
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, width=_width()),
    )
    parser.add_argument("--version", action="version", version=f"preforkd {preforkd.VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="run the server", description="Serve until a signal or preforkctl stop."
    )
    run.set_defaults(command=_run)
    setting_options.add(run)
    check = commands.add_parser("check", help="check a configuration file")
    check.set_defaults(command=_check)
    check.add_argument("file", nargs="?", metavar="FILE", help="default: " + DEFAULT_PATH)
    check.add_argument(
        "--import",
        dest="load",
        action="store_true",
        help="load the application and the certificate as well",
    )
    config = commands.add_parser("config", help="show the settings in force and their origins")
    config.set_defaults(command=_config)
    setting_options.add(config)
    convert = commands.add_parser(
        "convert",
        help="convert the configuration of gunicorn or uWSGI",
        description="Print a preforkd.yaml with comments on what has no equal; the source is not executed.",
    )
    convert.set_defaults(command=_convert)
    convert.add_argument(
        "source",
        metavar="FILE|COMMAND",
        help="a gunicorn.conf.py, a uwsgi.ini, or a command in quotes: 'gunicorn -w 4 mysite.wsgi'",
    )
    convert.add_argument(
        "--unit", action="store_true", help="print a drop-in of preforkd.service instead"
    )
    wait = commands.add_parser(
        "wait-workers",
        help="for ExecStop=: wait for the workers of a killed master",
        description="Log how the master was killed, according to the environment that systemd sets, and "
        f"return once its workers have finished their requests, after at most {_WORKERS_GRACE:g} seconds.",
    )
    wait.set_defaults(command=_wait_workers)
    # The former name, not listed: units of an administrator or of an older package may call it.
    commands.add_parser("farewell").set_defaults(command=_wait_workers)
    return parser


def _epilog() -> str:
    statuses = [(status, meaning.preforkd) for status, meaning in EXIT_STATUSES.items()]
    return exit_statuses(statuses) + "signals: see preforkd(8)"


def _width() -> int:
    # As shutil.get_terminal_size() finds it; two less, as argparse has it.
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 2:
        return int(columns) - 2
    try:
        return (os.get_terminal_size().columns or 80) - 2
    except OSError:
        return 78


if __name__ == "__main__":
    sys.exit(main())
