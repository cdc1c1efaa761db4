"""``preforkd run``, ``preforkd check``, ``preforkd config`` and ``preforkd farewell``."""

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
from preforkd.cli import lean  # noqa: F401 - before anything else loads msgspec
from preforkd.cli.output import to_whoever_reads
from preforkd.config import reader_process
from preforkd.config.configuration import DEFAULT_PATH, Configuration
from preforkd.core.text import printable, printable_lines
from preforkd.errors import ConfigurationError, ExitStatus, PreforkdError, refused, shortage
from preforkd.linux import cgroup, environment
from preforkd.linux.sd_notify import Notifier
from preforkd.logs import catalog, logs, streams
from preforkd.logs.journal import stderr_is_journal

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger("preforkd.master")

_EPILOG = """\
exit statuses: 0 ended as asked, 69 the application failed, 70 preforkd failed, 71 the system
refused something, 78 the configuration is wrong.  signals: TERM and INT drain (a second one is
quick), HUP reloads, QUIT stops quickly, USR1 logs the status.
"""
_WHY_KILLED = {
    "watchdog": ": it did not feed the watchdog within WatchdogSec=",
    "timeout": ": a step took longer than its timeout in the unit",
    "oom-kill": ": memory was short",
}
"""What $SERVICE_RESULT adds to the signal."""
_LEAST_LIFE = 2.0
"""Seconds that a socket-activated service lives at the least, when its start fails."""
_FAREWELL = 5.0
"""Seconds that requests may take that are under way when the master is killed."""
_CLEAN = frozenset({"INT", "TERM", "USR2"})
"""Signals at which a master that cannot handle them yet ends as it was asked to."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parse(arguments)
    try:
        return to_whoever_reads(lambda: int(options.command(options)))
    except PreforkdError as error:
        _complain(error)
        return error.exit_status
    except OSError as error:
        if not shortage(error):
            raise
        _complain(failure := refused("preforkd", error))
        return failure.exit_status


def _complain(error: PreforkdError, head: str = "preforkd:") -> None:
    if isinstance(error, ConfigurationError):
        for problem in error.problems:
            print(printable(f"{head} {problem}"), file=sys.stderr)
        if error.hint:
            print(printable(f"hint: {error.hint}"), file=sys.stderr)
    else:
        print(printable_lines(f"{head} {error.report()}"), file=sys.stderr)


# --- the commands --------------------------------------------------------------------------------


def _run(options: Options) -> int:
    _take_signals_anew()
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
        _tell_administrator(error, notifier)
        status = error.exit_status
    notifier.close()
    if status and activated:
        _fail_slowly(began)
    return status


def _take_signals_anew() -> None:
    # A wish to reload, or to log the status, that comes before the master can hear it must not end it.
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # What was blocked by whoever started us would stay so, a stop for example.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _tell_administrator(error: PreforkdError, notifier: Notifier) -> None:
    # Where systemd has started us: journalctl -x explains it, and systemctl status has it in a line.
    if stderr_is_journal(os.environ.get("JOURNAL_STREAM", "")):
        logs.configure("info", "auto")
        text = f"the service cannot start: {error.report()}"
        fields = {"MESSAGE_ID": catalog.START_FAILED.id}
        logger.critical("%s", text, extra={"journal": fields})
    else:
        _complain(error, f"{logs.time_of(time.time())} preforkd[{os.getpid()}]: critical:")
    notifier.status(f"cannot start: {error.message}")


def _serve(options: Options) -> int:
    settings = _options(options)
    path: str | None = options.config
    if path is not None:
        # A symbolic link on the way to it is followed anew at each reload.
        path = os.path.join(environment.working_directory(os.environ), path)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    # The master's own modules are of no use to the other commands; nor is what reads the configuration
    # to the master.
    from preforkd.supervisor import main  # noqa: PLC0415

    return main.run(lambda: reader_process.load(path, settings, credentials))


def _fail_slowly(began: float) -> None:
    # The connection that started us still waits in the socket, and systemd starts us again for it at
    # once, whatever RestartSec= and RestartPreventExitStatus= say: without a pause, for ever and at full
    # speed. A stop ends the pause.
    rest = began + _LEAST_LIFE - time.monotonic()
    if rest > 0:
        stops = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR2}
        signal.pthread_sigmask(signal.SIG_BLOCK, stops)
        signal.sigtimedwait(stops, rest)


def _check(options: Options) -> int:
    loaded = _load_for_a_look(options.file, {})
    if options.load:
        from preforkd.supervisor import check  # noqa: PLC0415

        failure = check.check_application(loaded, environment.clean(os.environ))
        if failure is not None:
            print(printable_lines(f"preforkd: {failure.report()}"), file=sys.stderr)
            return failure.blame.exit_status
    what = loaded.path or "the built-in configuration"
    print(f"{what} is valid" + (", the application loads" if options.load else ""))
    return ExitStatus.OK


def _load_for_a_look(path: str | None, options: dict[str, str | list[str]]) -> Configuration:
    from preforkd.config import sources  # noqa: PLC0415
    from preforkd.config.credentials import Credentials  # noqa: PLC0415

    credentials = Credentials(os.environ.get("CREDENTIALS_DIRECTORY"), checking=True)
    return sources.load(path, options, credentials)


def _config(options: Options) -> int:
    from preforkd.config import sources  # noqa: PLC0415

    loaded = _load_for_a_look(options.config, _options(options))
    rows = [
        (entry.setting, printable(entry.value_text), str(entry.place or "default"))
        for entry in sources.effective(loaded)
    ]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    for setting, value, place in rows:
        print(f"{setting:<{first}}  {value:<{min(second, 40)}}  {place}")
    return ExitStatus.OK


def _farewell(_options: Options) -> int:
    logs.configure("info", "auto")
    name = os.environ.get("EXIT_STATUS", "")
    if os.environ.get("EXIT_CODE") in {"killed", "dumped"} and name not in _CLEAN:
        result = os.environ.get("SERVICE_RESULT", "")
        text = f"the master was killed by SIG{name}{_WHY_KILLED.get(result, '')}"
        fields = {"MESSAGE_ID": catalog.MASTER_KILLED.id}
        logger.error("%s", text, extra={"journal": fields})
    # The workers finish what they have in hand and leave. What systemd does next is to kill them.
    if left := cgroup.wait_until_alone(_FAREWELL):
        logger.warning("%d processes of the master are not waited for longer", len(left))
    return ExitStatus.OK


# --- the command line ----------------------------------------------------------------------------


def _options(options: Options) -> dict[str, str | list[str]]:
    given = {
        "app.target": options.target,
        "app.directory": options.directory,
        "app.python": options.python,
        "listen": options.listen,
        "workers.count": options.workers,
        "log.level": options.level,
    }
    return {setting: value for setting, value in given.items() if value is not None}


def _parse(arguments: Sequence[str] | None) -> Options:
    # Without what argparse has brought, which would stay in the master's memory for ever: half a MB.
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
        epilog=_EPILOG,
        # It would import shutil, and with it all kinds of compression, to find the width itself.
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, width=_width()),
    )
    parser.add_argument("--version", action="version", version=f"preforkd {preforkd.VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="serve", description="Serve until told to stop.")
    run.set_defaults(command=_run)
    _take_settings(run)
    check = commands.add_parser("check", help="check a configuration file")
    check.set_defaults(command=_check)
    check.add_argument("file", nargs="?", metavar="FILE", help="default: " + DEFAULT_PATH)
    check.add_argument(
        "--import", dest="load", action="store_true", help="load application and certificate, too"
    )
    config = commands.add_parser("config", help="show the settings, and where each comes from")
    config.set_defaults(command=_config)
    _take_settings(config)
    farewell = commands.add_parser(
        "farewell",
        help="for ExecStop=: wait for the workers of a master that was killed",
        description="Log how the master was killed, by what systemd passes in the environment, and "
        "return as soon as its workers have finished their requests, or after "
        f"{_FAREWELL:g} seconds.",
    )
    farewell.set_defaults(command=_farewell)
    return parser


def _width() -> int:
    # As shutil.get_terminal_size() finds it; two less, as argparse has it.
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 2:
        return int(columns) - 2
    try:
        return (os.get_terminal_size().columns or 80) - 2
    except OSError:
        return 78


def _take_settings(parser: "argparse.ArgumentParser") -> None:
    parser.add_argument(
        "target",
        nargs="?",
        metavar="KIND:MODULE:ATTRIBUTE",
        help="the application, for example wsgi:mysite.wsgi:application (app.target)",
    )
    parser.add_argument("--config", metavar="FILE", help="default: " + DEFAULT_PATH)
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        action="append",
        help="host:port, [v6]:port, :port or unix:/path; may be given again (listen)",
    )
    parser.add_argument("--workers", metavar="N", help="number of workers, or auto (workers)")
    parser.add_argument("--directory", metavar="DIR", help="the application's (app.directory)")
    parser.add_argument("--python", metavar="EXE", help="its interpreter (app.python)")
    parser.add_argument("--log-level", dest="level", metavar="LEVEL", help="(log.level)")


if __name__ == "__main__":
    sys.exit(main())
