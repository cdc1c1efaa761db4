"""What the translations of all servers share: addresses, applications, paths and users."""

import os.path
import re

from preforkd.cli.convert.draft import Draft, variables
from preforkd.cli.convert.given import Given, Options
from preforkd.core.text import printable

COMPUTED = "its value is not known here ({}): set it by hand"
PRELOAD = (
    "preforkd loads the application once, before the fork; if it starts threads or opens connections at "
    "import, set app.preload: false, which loads it in each worker, "
    "or open them in worker_started of the setting hooks"
)
_VENV = re.compile(r"(/.+)/bin/[^/]+")
_LOW_PORT = re.compile(r".*:0*(\d{1,3}|10[01]\d|102[0-3])")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def refuse_computed(draft: Draft, options: Options) -> Options:
    """Return the options whose values are known; the others become notes."""
    for name, given in options.items():
        if given.computed:
            draft.note(name, COMPUTED.format(given.computed))
    return {name: given for name, given in options.items() if not given.computed}


def set_target(draft: Draft, kind: str, name: str, default: str, given: Given) -> None:
    """Set app.target from MODULE, or MODULE:ATTRIBUTE."""
    module, _, attribute = name.partition(":")
    if not _MODULE.fullmatch(module):
        text = f"{printable(name)} is not the name of a module: set app.target to {kind}:MODULE:ATTRIBUTE"
        draft.note("app.target", text)
        return
    draft.set("app.target", f"{kind}:{module}:{attribute or default}", variables(given.variables))


def add_listener(draft: Draft, text: str, given: Given, default_port: str = "8000") -> None:
    """Add an address to listen on: HOST:PORT, :PORT, PORT, HOST, [v6]:port, unix:/path or /path."""
    text = text.removeprefix("tcp://").removeprefix("http://").replace("unix://", "unix:")
    if text.startswith("fd:"):
        draft.note("listen", f"{text}: systemd passes the socket of preforkd.socket by itself")
        return
    if text.startswith(("/", "unix:")):
        path = text.removeprefix("unix:")
        text = f"unix:{path}"
        if not path.startswith("/"):
            base = draft.values.get("app.directory", "/run/preforkd")
            text = f"unix:{os.path.normpath(os.path.join(base, path))}"
        _open_path(draft, text.removeprefix("unix:"))
    elif text.isdecimal():
        text = f":{text}"
    elif ":" not in text or text.endswith("]"):
        text = f"{text}:{default_port}"
    if not text.startswith("unix:") and _LOW_PORT.fullmatch(text):
        draft.unit["AmbientCapabilities"] = "CAP_NET_BIND_SERVICE"
        draft.unit["CapabilityBoundingSet"] = "CAP_NET_BIND_SERVICE"
        draft.unit["PrivateUsers"] = "no"
    if text not in [entry["address"] for entry in draft.listen]:
        draft.listen.append({"address": text})
    if comment := variables(given.variables):
        draft.comments["listen"] = comment


def _open_path(draft: Draft, path: str) -> None:
    folder = os.path.dirname(path)
    if folder.startswith(("/tmp", "/var/tmp")):  # noqa: S108 - compared only
        text = f"{path}: the unit has a /tmp of its own (PrivateTmp=); use /run/preforkd/NAME.sock"
        draft.note("listen", text)
    elif not folder.startswith("/run/preforkd"):
        draft.note(
            "listen",
            f"{path}: preforkd.socket creates it as root (ListenStream={path}; SocketMode=, SocketGroup=), "
            "which needs no writable directory",
        )


def set_directory(draft: Draft, path: str, given: Given) -> None:
    """Set the application's directory, and let the unit see it."""
    draft.set("app.directory", path, variables(given.variables))
    if not path.startswith("/"):
        draft.comments["app.directory"] = "relative: write the whole path, a unit starts elsewhere"
    _show_home(draft, path)


def set_python(draft: Draft, program: str) -> None:
    """Set the interpreter to that of the virtual environment in which a program is installed."""
    if (found := _VENV.fullmatch(program)) and found[1] not in {"/usr", "/usr/local"}:
        draft.set("app.python", f"{found[1]}/bin/python")
        _show_home(draft, program)


def _show_home(draft: Draft, path: str) -> None:
    if path.startswith(("/home/", "/root/")):
        draft.unit["ProtectHome"] = "read-only"


def add_environment(draft: Draft, pairs: list[str], option: str) -> None:
    """Add NAME=VALUE pairs to app.environment."""
    environment = draft.values.setdefault("app.environment", {})
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if sign:
            environment[name.strip()] = value
        else:
            draft.note(option, f"{pair!r} is not NAME=VALUE")
    if not environment:
        del draft.values["app.environment"]


def set_owner(draft: Draft, user: str, group: str = "") -> None:
    """Set User= and Group= of the unit."""
    if user:
        draft.unit["User"] = user
    if group:
        draft.unit["Group"] = group


def set_access_log(draft: Draft, target: str, given: Given) -> None:
    """Set the destination of the access log: '-' and names of devices are standard error."""
    if not target or target in {"None", "/dev/null"}:
        return
    if target == "-" or target.startswith(("/dev/std", "/proc/")):
        draft.set("access_log.target", "stderr")
        return
    text = "no program rotates it here; journal keeps the lines with their fields"
    draft.set("access_log.target", target, variables(given.variables) or text)
    folder = os.path.dirname(target)
    if folder.startswith("/var/log/"):
        draft.unit["LogsDirectory"] = folder.removeprefix("/var/log/")
    elif folder.startswith("/") and not folder.startswith("/tmp"):  # noqa: S108 - compared only
        draft.unit["ReadWritePaths"] = folder


def trust(draft: Draft, addresses: list[str], given: Given, headers: str = "x-forwarded") -> None:
    """Set the trusted proxies; ``*`` is every address."""
    addresses = [each for each in addresses if each]
    everybody = "*" in addresses
    trusted = ["0.0.0.0/0", "::/0", "unix"] if everybody else addresses
    if (
        any(entry["address"].startswith("unix:") for entry in draft.listen)
        and "unix" not in trusted
    ):
        trusted = [*trusted, "unix"]
    if not trusted:
        return
    comment = "every client can name another address: list the proxy's own addresses instead"
    draft.set("proxy.trusted", trusted, comment if everybody else variables(given.variables))
    if headers:
        draft.set("proxy.headers", headers)
