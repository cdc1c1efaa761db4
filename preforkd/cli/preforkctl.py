"""The command line ``preforkctl``: status, memory, reload, scale, refork, stop."""

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
from preforkd.cli.output import to_whoever_reads
from preforkd.control import path
from preforkd.control.client import Client, NotRunningError, ReloadFailedError
from preforkd.core.text import printable, printable_lines
from preforkd.errors import ExitStatus, PreforkdError

_EPILOG = """\
exit statuses: 0 done, 2 wrong usage, 75 no preforkd runs there, 77 not allowed; for a reload that
failed: 69 the application, 70 preforkd, 71 the system, 78 the configuration.
"""
_LAST_SIGNAL = 1.0
"""Seconds within which systemd sends the signal of a stop to ExecReload= after the master has it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        client = _connect(options)
        try:
            return to_whoever_reads(lambda: int(options.command(client, options)))
        finally:
            client.close()
    except PreforkdError as error:
        print(printable_lines(f"preforkctl: {error.report()}"), file=sys.stderr)
        return error.exit_status


class NotNamedError(PreforkdError):
    """Several services run, and none was named."""

    exit_status = ExitStatus.USAGE


def _connect(options: argparse.Namespace) -> Client:
    try:
        return Client(_find_socket(options))
    except NotRunningError as error:
        # Without $RUNTIME_DIRECTORY, which names one as an option does.
        if runs := [_how_to_name(one) for one in path.running({})]:
            error.hint = f"start it, or name one that runs: {', '.join(runs)}"
        raise


def _find_socket(options: argparse.Namespace) -> str:
    """Return the path of the control socket that was named, or of the only one there is.

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
        rows = "\n".join(f"  {_how_to_name(one)}" for one in found)
        raise NotNamedError(f"several services run, name one of them:\n{rows}")
    others = [one for folder in path.services() if path.answers(one := f"{folder}/{path.NAME}")]
    hint = "".join(f"; {_how_to_name(one)} is another user's" for one in others)
    raise NotRunningError(
        "no preforkd of this user runs", hint=f"start it, or name its control socket{hint}"
    )


def _how_to_name(found: str) -> str:
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
        print(render(_shown(service), bold=_bold if _coloured() else str))
    return ExitStatus.OK


def _memory(client: Client, options: argparse.Namespace) -> int:
    memory = client.call("GetMemory")["memory"]
    if options.json:
        print(json.dumps(memory, indent=2))
    else:
        print(render_memory(_shown(memory), bold=_bold if _coloured() else str))
    return ExitStatus.OK


def _reload(client: Client, options: argparse.Namespace) -> int:
    try:
        answer = client.call("Reload", fresh=options.fresh)
    except ReloadFailedError as error:
        if error.exit_status == ExitStatus.NOT_RUNNING and _started_by_systemd():
            # A stop by systemd ends the process of ExecReload= by the same signal, which is on its way: a
            # failure of ours would be the service's.
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
    raise argparse.ArgumentTypeError(f"{text!r} is none of N, +N, -N and auto")


def _refork(client: Client, _options: argparse.Namespace) -> int:
    print(printable(client.call("Refork")["message"]))
    return ExitStatus.OK


def _stop(client: Client, options: argparse.Namespace) -> int:
    client.call("Stop", quick=options.quick)
    client.wait_for_end()
    return ExitStatus.OK


def _shown(value: Any) -> Any:
    # What a service says holds texts of clients and applications, and this is an administrator's terminal.
    if isinstance(value, dict):
        return {name: _shown(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    return printable(value) if isinstance(value, str) else value


# --- what a person reads -------------------------------------------------------------------------


def render(service: dict[str, Any], bold: Any = str) -> str:
    """Return the service as a text for a terminal; ``bold`` marks a word."""
    lines = [f"{bold('preforkd')} {service['version']}, {service['state']}: {service['status']}"]
    head = [
        ("Main PID", f"{service['pid']}, up {span(service['uptime_seconds'])}"),
        ("Workers", _workers(service)),
        ("Config", service["configuration"] or "built-in defaults and options"),
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
        parts.append("a size given by hand")
    elif service["least"] < service["most"]:
        parts.append(f"elastic, {service['least']} to {service['most']}")
    if service["waiting"]:
        parts.append(f"{service['waiting']} connections wait")
    return ", ".join(parts)


def _listener(listener: dict[str, Any]) -> str:
    name = "" if listener["name"] == listener["address"] else f"{listener['name']}, "
    origin = "from systemd" if listener["origin"] == "systemd" else "bound here"
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
    return f"{at} failed: {reload['message']}{hint}; the log has more; fix that, then reload again"


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
    # The column of words to the left, numbers to the right.
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
    """Return the memory of all processes as a table for a terminal, and the sums below it."""
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
    total = f"{megabytes(memory['pss'])} together (sum of PSS)"
    if memory["unrelated"] is not None:
        whole = megabytes(memory["unrelated"])
        total += f"; as {workers} unrelated processes this would be about {whole}"
    problems = [f"not read: {problem}" for problem in memory["problems"]]
    return "\n".join([*lines, "", total, *problems])


def megabytes(size: int | None) -> str:
    """Return a size in M, to the base of 1024 as in the settings; ``-`` for one that is not known."""
    return "-" if size is None else f"{size / (1 << 20):.1f}M"


def span(seconds: float) -> str:
    """Return a span of time in its two largest units: ``2d 3h``, ``5min 7s``, ``0.4s``."""
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
        description="Look at a preforkd service, reload it, give it another size, stop it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"preforkctl {preforkd.VERSION}")
    named = parser.add_mutually_exclusive_group()
    named.add_argument("--socket", metavar="PATH", help="the master's control socket")
    named.add_argument(
        "--instance", metavar="NAME", default="", help="the service preforkd@NAME.service"
    )
    named.add_argument(
        "--system", action="store_true", help="the service preforkd.service of the system"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="show the service and its workers")
    status.add_argument("--json", action="store_true", help="for programs")
    status.set_defaults(command=_status)
    memory = commands.add_parser("memory", help="show what each process takes, and all together")
    memory.add_argument("--json", action="store_true", help="for programs")
    memory.set_defaults(command=_memory)
    reload = commands.add_parser("reload", help="reload; returns when the new generation serves")
    reload.add_argument("--fresh", action="store_true", help="new workers even if nothing changed")
    reload.set_defaults(command=_reload)
    scale = commands.add_parser(
        "scale",
        help="change the number of workers",
        description="Change the number of workers, until the settings of workers change or the "
        "service ends. A number fixes the size of an elastic pool, too.",
    )
    scale.add_argument(
        "size",
        metavar="N|+N|-N|auto",
        type=_size,
        help="so many, so many more or fewer, or what the settings say",
    )
    scale.set_defaults(command=_scale)
    refork = commands.add_parser(
        "refork",
        help="fork the workers anew from a warm one",
        description="Fork the next zygote from the worker that has answered the most requests, and "
        "replace the others by its own, so that they share what was loaded since the start.",
    )
    refork.set_defaults(command=_refork)
    stop = commands.add_parser("stop", help="stop; returns when the master has ended")
    stop.add_argument("--quick", action="store_true", help="without letting requests finish")
    stop.set_defaults(command=_stop)
    return parser


if __name__ == "__main__":
    sys.exit(main())
