"""What no setting can tell by itself: settings that contradict each other, or need another one."""

import re
from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct

from preforkd.config.fields import get, leaves
from preforkd.config.kinds import ApplicationKind, kind_of
from preforkd.config.settings import AccessLogSettings, ControlSettings, ListenSettings, Settings
from preforkd.config.target import is_request
from preforkd.errors import Place

_OF_UNIX_SOCKETS = ("mode", "owner", "group")
_OF_SOCKETS = ("backlog", *_OF_UNIX_SOCKETS)
_DEFAULT = ListenSettings()
_PROBE = re.compile(r"/[!-\"$->@-~]*")


class Contradiction(Struct, frozen=True):
    """The setting to blame, what is wrong, and what to do."""

    setting: str
    message: str
    hint: str


def contradictions(
    settings: Settings, secrets: Collection[str], origins: Mapping[str, Place]
) -> Iterator[Contradiction]:
    """Yield what does not fit together.

    ``secrets`` are settings whose values are in credentials, ``origins`` those that were written, with
    their places.
    """
    yield from _in_listeners(settings, secrets)
    if "app.target" in origins:  # else the command line of the service may name another kind
        yield from _in_kind(settings, kind_of(settings.app.target))
    place = origins.get("listen")
    if place is None or place.line:  # an option for a moment leaves the file as it is
        yield from _without_listener(settings, secrets)
    yield from _in_sizes(settings)
    yield from _in_times(settings)
    yield from _without_effect(settings, secrets)


def _in_listeners(settings: Settings, secrets: Collection[str]) -> Iterator[Contradiction]:
    trusts = bool(settings.proxy.trusted)
    hint = "list its addresses in proxy.trusted"
    for index, listen in enumerate(settings.listen):
        path = f"listen[{index}]"
        if listen.tls and not _has_certificate(settings, secrets):
            yield Contradiction(f"{path}.tls", "TLS needs a certificate", "set tls.certificate")
        if listen.proxy_protocol and not trusts:
            yield Contradiction(f"{path}.proxy_protocol", "no proxy is trusted", hint)
        yield from _in_listener(listen, path)
    if settings.proxy.headers != "off" and not trusts:
        yield Contradiction("proxy.headers", "no proxy is trusted", hint)
    for setting in ("http.healthy", "http.ready"):
        path = get(settings, setting)
        if path and not _PROBE.fullmatch(path):
            yield Contradiction(setting, f"{path!r} is no path", "for example /-/healthy")
        if path and settings.app.check.partition("?")[0] == path:
            message = f"{path} is answered by the worker itself ({setting})"
            yield Contradiction("app.check", message, "name a path of the application's")


def _in_listener(listen: ListenSettings, path: str) -> Iterator[Contradiction]:
    names: tuple[str, ...]
    if not listen.address:
        names, why = _OF_SOCKETS, "the socket is systemd's"
        hint = "write Backlog=, SocketMode=, SocketUser= or SocketGroup= in the socket unit"
    elif not listen.address.startswith("unix:"):
        names, why, hint = _OF_UNIX_SOCKETS, "it is for Unix sockets only", "leave it out"
    else:
        return
    for name in names:
        if getattr(listen, name) != getattr(_DEFAULT, name):
            yield Contradiction(f"{path}.{name}", f"this has no effect: {why}", hint)


def _has_certificate(settings: Settings, secrets: Collection[str]) -> bool:
    return bool(settings.tls.certificate) or "tls.certificate" in secrets


def _in_kind(settings: Settings, kind: ApplicationKind) -> Iterator[Contradiction]:
    for field in leaves():
        if kind.name not in field.kinds and get(settings, field.path) != field.default:
            message = f"this has no effect for an application of kind {kind.name}"
            hint = f"leave it out; it is for kind {' and '.join(field.kinds)}"
            yield Contradiction(field.path, message, hint)
    if not kind.http and not any(listen.has_opening for listen in settings.listen):
        for setting in ("http.header_timeout", "http.connections"):
            if get(settings, setting) != get(Settings(), setting):
                message = f"this has no effect for kind {kind.name} without tls and proxy_protocol"
                yield Contradiction(setting, message, "leave it out")
    if not kind.warm_up_requests and any(map(is_request, settings.app.warm_up)):
        message = f"an application of kind {kind.name} is sent no requests"
        yield Contradiction("app.warm_up", message, "name functions: MODULE:FUNCTION")
    if settings.memory.refork.after and kind.refork_refusal:
        yield Contradiction("memory.refork.after", kind.refork_refusal, "leave it out")


def _without_listener(settings: Settings, secrets: Collection[str]) -> Iterator[Contradiction]:
    # What an administrator believes to be protected must not be served without a word.
    if _has_certificate(settings, secrets) and not any(one.tls for one in settings.listen):
        hint = "write tls: true in an entry of listen, or leave the certificate out"
        yield Contradiction("tls.certificate", "no listener speaks TLS", hint)
    proxied = any(one.proxy_protocol for one in settings.listen)
    if settings.proxy.trusted and settings.proxy.headers == "off" and not proxied:
        message = "nothing that these proxies say is used"
        hint = "set proxy.headers, or proxy_protocol in an entry of listen"
        yield Contradiction("proxy.trusted", message, hint)


def _without_effect(settings: Settings, secrets: Collection[str]) -> Iterator[Contradiction]:
    if settings.tls.key and not _has_certificate(settings, secrets):
        yield Contradiction("tls.key", "a key needs a certificate", "set tls.certificate")
    log = settings.access_log
    if log.format != AccessLogSettings().format and log.target in {"off", "journal"}:
        message = f"this has no effect with access_log.target: {log.target}"
        yield Contradiction("access_log.format", message, "it is for stderr or a file")
    if settings.control.socket == "off":
        for name in ("mode", "group"):
            if getattr(settings.control, name) != getattr(ControlSettings(), name):
                yield Contradiction(f"control.{name}", "there is no control socket", "leave it out")


def _in_sizes(settings: Settings) -> Iterator[Contradiction]:
    workers = settings.workers
    if workers.max and workers.count != "auto":
        hint = (
            "leave one of them out: count is for a fixed size, min and max are for an elastic pool"
        )
        yield Contradiction("workers.count", "count and max exclude each other", hint)
    for name in ("min", "spare"):
        setting, value = f"workers.{name}", getattr(workers, name)
        if value and not workers.max:
            hint = "set workers.max as well; a fixed size is workers.count"
            yield Contradiction(setting, f"{name} needs a max", hint)
        elif value > workers.max:
            message = f"{value} is more than workers.max, {workers.max}"
            yield Contradiction(setting, message, "write no more than max")
    total = settings.http.spool_total
    if total and total < settings.http.max_body:
        message = "a body of http.max_body would find no room"
        yield Contradiction("http.spool_total", message, "write no less than http.max_body")


def _in_times(settings: Settings) -> Iterator[Contradiction]:
    timeouts = settings.timeouts
    if timeouts.request and timeouts.slow >= timeouts.request:
        message = "no request lasts so long: timeouts.request ends it before"
        yield Contradiction("timeouts.slow", message, "write less than timeouts.request")
