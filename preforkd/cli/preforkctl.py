"""``preforkctl status``, ``memory``, ``reload``, ``scale``, ``refork`` and ``stop``: the control socket's client.

Its output is for a terminal; ``--json`` prints what the master returned, for programs.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import preforkd
from preforkd.cli.output import exit_statuses, run_printing
from preforkd.control import path
from preforkd.control.client import Client, NotRunningError, ReloadFailedError
from preforkd.core.text import printable, printable_lines
from preforkd.errors import EXIT_STATUSES, ExitStatus, PreforkdError

_EPILOG = exit_statuses((status, meaning.preforkctl) for status, meaning in EXIT_STATUSES.items())
_LAST_SIGNAL = 1.0
"""Seconds after which systemd, at a stop, has sent the signal to the process of ExecReload= as well."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        client = _connect(options)
        try:
            return run_printing(lambda: int(options.command(client, options)))
        finally:
            client.close()
    except PreforkdError as error:
        print(printable_lines(f"preforkctl: {error.report()}"), file=sys.stderr)
        return error.exit_status


class NotNamedError(PreforkdError):
    """Several services run, and the command line names none of them."""

    exit_status = ExitStatus.USAGE


def _connect(options: argparse.Namespace) -> Client:
    try:
        return Client(_find_socket(options))
    except NotRunningError as error:
        # Looked up without $RUNTIME_DIRECTORY: it named the service that does not run.
        if runs := [_option_for(one) for one in path.running({})]:
            error.hint = f"start it, or name a running one: {', '.join(runs)}"
        raise


def _find_socket(options: argparse.Namespace) -> str:
    """Return the path of the control socket that the options name, or of the only running service.

    Raises NotRunningError and NotNamedError.
    """
    if options.socket:
        return str(options.socket)
    if options.system or options.instance:
        return path.of_service(options.instance)
    found = path.running(os.environ)
    if len(found) == 1:
        return found[0]
    if found:
        rows = "\n".join(f"  {_option_for(one)}" for one in found)
        raise NotNamedError(f"several services run; name one of them:\n{rows}")
    others = [one for folder in path.services() if path.answers(one := f"{folder}/{path.NAME}")]
    hint = "".join(f"; {_option_for(one)} belongs to another user" for one in others)
    raise NotRunningError(
        "no preforkd of this user runs", hint=f"start it, or name its control socket{hint}"
    )


def _option_for(found: str) -> str:
    instance = path.instance_of(found)
    if instance is None:
        return f"--socket {found}"
    return f"--instance {instance}" if instance else "--system"


# --- the commands --------------------------------------------------------------------------------


def _status(client: Client, options: argparse.Namespace) -> int:
    service = client.call("GetStatus")["service"]
    if options.json:
        print(json.dumps(service, indent=2))
    else:
        print(render(_printable(service), bold=_bold if _coloured() else str))
    return ExitStatus.OK


def _memory(client: Client, options: argparse.Namespace) -> int:
    memory = client.call("GetMemory")["memory"]
    if options.json:
        print(json.dumps(memory, indent=2))
    else:
        print(render_memory(_printable(memory), bold=_bold if _coloured() else str))
    return ExitStatus.OK


def _reload(client: Client, options: argparse.Namespace) -> int:
    try:
        answer = client.call("Reload", fresh=options.fresh)
    except ReloadFailedError as error:
        if error.exit_status == ExitStatus.NOT_RUNNING and _started_by_systemd():
            # systemd stops the service and sends its signal to this process of ExecReload= as well. To exit
            # with a failure before it arrives would mark the service as failed.
            time.sleep(_LAST_SIGNAL)
        raise
    print(printable(answer["message"]))
    if answer["restart"]:
        print("needs a restart: " + ", ".join(answer["restart"]))
    return ExitStatus.OK


def _started_by_systemd() -> bool:
    return os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def _scale(client: Client, options: argparse.Namespace) -> int:
    size: str = options.size
    if size == "auto":
        parameters = {}
    elif size.startswith(("+", "-")):
        parameters = {"by": int(size)}
    else:
        parameters = {"size": int(size)}
    answer = client.call("Scale", **parameters)
    print(f"{answer['size']} workers")
    return ExitStatus.OK


def _size(text: str) -> str:
    if text == "auto" or re.fullmatch(r"[+-]?[0-9]{1,4}", text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not N, +N, -N or auto")


def _refork(client: Client, _options: argparse.Namespace) -> int:
    print(printable(client.call("Refork")["message"]))
    return ExitStatus.OK


def _stop(client: Client, options: argparse.Namespace) -> int:
    client.call("Stop", quick=options.quick)
    client.wait_for_end()
    return ExitStatus.OK


def _printable(value: Any) -> Any:
    # A status contains texts of clients and applications: escape sequences must not reach the terminal.
    if isinstance(value, dict):
        return {name: _printable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_printable(inner) for inner in value]
    return printable(value) if isinstance(value, str) else value


# --- the output ----------------------------------------------------------------------------------


def render(service: dict[str, Any], bold: Any = str) -> str:
    """Return the service's status as text for a terminal; ``bold`` highlights a text."""
    lines = [f"{bold('preforkd')} {service['version']}, {service['state']}: {service['status']}"]
    head = [
        ("Main PID", f"{service['pid']}, up {span(service['uptime_seconds'])}"),
        ("Workers", _workers(service)),
        ("Config", service["configuration"] or "defaults and command line"),
        *(("Listener", _listener(listener)) for listener in service["listeners"]),
        *(("Generation", _generation(row)) for row in service["generations"]),
        *(("Problem", problem) for problem in service["problems"]),
    ]
    if service["last_reload"]:
        head.append(("Reload", _last_reload(service["last_reload"])))
    lines += [f"{label:>10}: {value}" for label, value in head]
    return "\n".join([*lines, "", *_table(service["workers"], bold)])


def _workers(service: dict[str, Any]) -> str:
    more = service["ready"] - service["target"]
    parts = [f"{service['ready']} of {service['target']}"]
    if more > 0:
        parts = [f"{service['ready']}, {more} more than configured"]
    if service["by_hand"]:
        parts.append("size set manually")
    elif service["least"] < service["most"]:
        parts.append(f"elastic, {service['least']} to {service['most']}")
    if service["waiting"]:
        parts.append(f"{service['waiting']} connections waiting")
    return ", ".join(parts)


def _listener(listener: dict[str, Any]) -> str:
    name = "" if listener["name"] == listener["address"] else f"{listener['name']}, "
    origin = "from systemd" if listener["origin"] == "systemd" else "bound by preforkd"
    return f"{listener['address']} ({name}{origin})"


def _generation(row: dict[str, Any]) -> str:
    zygote = (
        f"zygote {row['zygote_pid']} {row['zygote_state']}" if row["zygote_pid"] else "no zygote"
    )
    return f"{row['generation']}, {row['role']}, {row['workers']} workers, {zygote}"


def _last_reload(reload: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(reload["at_unix"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if reload["ok"]:
        return f"{at} {reload['message']}"
    hint = f" ({reload['hint']})" if reload["hint"] else ""
    return f"{at} failed: {reload['message']}{hint}; see the log, fix the cause and reload again"


def _table(workers: list[dict[str, Any]], bold: Any) -> list[str]:
    titles = ("SLOT", "PID", "GEN", "STATE", "AGE", "REQUESTS", "CONNECTIONS")
    rows = [
        (
            str(worker["slot"]),
            str(worker["pid"] or "-"),
            str(worker["generation"]),
            _state(worker),
            span(worker["age_seconds"]),
            str(worker["requests"]),
            str(worker["connections"]),
        )
        for worker in workers
    ]
    return _columns(titles, rows, "STATE", bold)


def _columns(
    titles: tuple[str, ...], rows: Sequence[tuple[str, ...]], words: str, bold: Any
) -> list[str]:
    # The column ``words`` is aligned to the left, all others to the right.
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]
    aligned = [
        "  ".join(
            cell.ljust(width) if title == words else cell.rjust(width)
            for title, cell, width in zip(titles, row, widths, strict=True)
        ).rstrip()
        for row in [titles, *rows]
    ]
    return [bold(aligned[0]), *aligned[1:]]


def _state(worker: dict[str, Any]) -> str:
    if worker["busy_seconds"] is not None:
        what = f": {worker['busy_with']}" if worker["busy_with"] else ""
        return f"busy for {span(worker['busy_seconds'])}{what}"
    if worker["state"] == "ready":
        return "idle" if worker["serving"] else "ready"
    return str(worker["state"])


def render_memory(memory: dict[str, Any], bold: Any = str) -> str:
    """Return the memory of all processes as a table for a terminal, with the totals below it."""
    titles = ("PROCESS", "PID", "GEN", "USS", "PSS", "SHARED", "GROWTH")
    rows = [
        (
            process["role"] + ("" if process["slot"] is None else f" {process['slot']}"),
            str(process["pid"]),
            "-" if process["generation"] is None else str(process["generation"]),
            *(megabytes(process[name]) for name in ("uss", "pss", "shared", "growth")),
        )
        for process in memory["processes"]
    ]
    lines = _columns(titles, rows, "PROCESS", bold)
    workers = sum(process["role"] == "worker" for process in memory["processes"])
    total = f"total {megabytes(memory['pss'])} (sum of PSS)"
    if memory["unrelated"] is not None:
        whole = megabytes(memory["unrelated"])
        total += f"; as {workers} unrelated processes: about {whole}"
    problems = [f"not read: {problem}" for problem in memory["problems"]]
    return "\n".join([*lines, "", total, *problems])


def megabytes(size: int | None) -> str:
    """Return a size in M (1024 * 1024 bytes); ``-`` for an unknown one."""
    return "-" if size is None else f"{size / (1 << 20):.1f}M"


def span(seconds: float) -> str:
    """Return a duration in its two largest units: ``2d 3h``, ``5min 7s``, ``0.4s``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    rest, parts = round(seconds), []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if rest >= length:
            parts.append(f"{rest // length}{unit}")
            rest %= length
    return " ".join(parts[:2])


def _coloured() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _bold(text: str) -> str:
    return f"\033[1m{text}\033[0m"


# --- the command line ----------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="preforkctl",
        description="Show the state of a preforkd service, reload it, scale it, stop it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"preforkctl {preforkd.VERSION}")
    named = parser.add_mutually_exclusive_group()
    named.add_argument("--socket", metavar="PATH", help="control socket of the master")
    named.add_argument("--instance", metavar="NAME", default="", help="preforkd@NAME.service")
    named.add_argument("--system", action="store_true", help="preforkd.service")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="show the service and its workers")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(command=_status)
    memory = commands.add_parser("memory", help="show the memory of each process, and the total")
    memory.add_argument("--json", action="store_true", help="print JSON")
    memory.set_defaults(command=_memory)
    reload = commands.add_parser("reload", help="reload; returns when the new generation serves")
    reload.add_argument(
        "--fresh", action="store_true", help="start new workers even if nothing changed"
    )
    reload.set_defaults(command=_reload)
    scale = commands.add_parser(
        "scale",
        help="change the number of workers",
        description="Set the number of workers, until the section workers changes or the service "
        "stops. A number also gives an elastic pool a fixed size.",
    )
    scale.add_argument(
        "size",
        metavar="N|+N|-N|auto",
        type=_size,
        help="the number, a change of it, or auto for that of the configuration",
    )
    scale.set_defaults(command=_scale)
    refork = commands.add_parser(
        "refork",
        help="fork the workers again from a warm one",
        description="Fork the next zygote from the worker that has answered the most requests, and "
        "replace the workers by workers of this zygote, which share what was loaded since the start.",
    )
    refork.set_defaults(command=_refork)
    stop = commands.add_parser("stop", help="stop; returns when the master has exited")
    stop.add_argument("--quick", action="store_true", help="do not wait for running requests")
    stop.set_defaults(command=_stop)
    return parser


if __name__ == "__main__":
    sys.exit(main())
