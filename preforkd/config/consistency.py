"""Checks across settings: those that contradict each other, have no effect, or require another one."""

import re
from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct

from preforkd.config.fields import get, leaves
from preforkd.config.kinds import ApplicationKind, kind_of
from preforkd.config.settings import (
    AccessLogSettings,
    ControlSettings,
    ListenSettings,
    ProxySettings,
    Settings,
    TlsSettings,
)
from preforkd.config.target import is_request
from preforkd.errors import Place

_UNIX_SOCKET_SETTINGS = ("mode", "owner", "group")
_SOCKET_SETTINGS = ("backlog", *_UNIX_SOCKET_SETTINGS)
_DEFAULT = ListenSettings()
_PROBE = re.compile(r"/[!-\"$->@-~]*")


class Contradiction(Struct, frozen=True):
    """The setting at fault, the message, and the hint."""

    setting: str
    message: str
    hint: str


def contradictions(
    settings: Settings, secrets: Collection[str], origins: Mapping[str, Place]
) -> Iterator[Contradiction]:
    """Yield the contradictions of the settings.

    ``secrets``: settings whose values come from credentials. ``origins``: settings that were written, with
    their places.
    """
    yield from _in_listeners(settings, secrets)
    if "app.target" in origins:  # else the service's command line may set another kind
        yield from _in_kind(settings, kind_of(settings.app.target))
    place = origins.get("listen")
    if (
        place is None or place.line
    ):  # not for --listen: the file need not match an option of one run
        yield from _without_listener(settings, secrets)
    if not settings.app.preload:
        yield from _without_preload(settings)
    yield from _in_sizes(settings)
    yield from _in_times(settings)
    yield from _without_effect(settings, secrets)


def _in_listeners(settings: Settings, secrets: Collection[str]) -> Iterator[Contradiction]:
    trusts = bool(settings.proxy.trusted)
    hint = "list the addresses of the proxy in proxy.trusted"
    for index, listen in enumerate(settings.listen):
        path = f"listen[{index}]"
        if listen.tls and not _has_certificate(settings, secrets):
            yield Contradiction(f"{path}.tls", "TLS needs a certificate", "set tls.certificate")
        if listen.proxy_protocol and not trusts:
            yield Contradiction(f"{path}.proxy_protocol", "no proxy is trusted", hint)
        yield from _in_listener(listen, path)
    if settings.proxy.headers != "off" and not trusts:
        yield Contradiction("proxy.headers", "no proxy is trusted", hint)
    yield from _in_parameters(settings.proxy)
    for setting in ("http.healthy", "http.ready"):
        path = get(settings, setting)
        if path and not _PROBE.fullmatch(path):
            yield Contradiction(setting, f"{path!r} is not a path", "for example /-/healthy")
        if path and settings.app.check.partition("?")[0] == path:
            message = f"the worker itself answers {path} ({setting})"
            yield Contradiction("app.check", message, "use a path of the application")


def _in_parameters(proxy: ProxySettings) -> Iterator[Contradiction]:
    if proxy.headers == "off" and proxy.parameters != ProxySettings().parameters:
        yield Contradiction(
            "proxy.parameters", "no effect with proxy.headers: off", "set proxy.headers"
        )
    for name in ("port", "prefix"):
        if proxy.headers == "forwarded" and name in proxy.parameters:
            message = f"the header Forwarded has no parameter {name}"
            yield Contradiction("proxy.parameters", message, "set proxy.headers: x-forwarded")


def _in_listener(listen: ListenSettings, path: str) -> Iterator[Contradiction]:
    names: tuple[str, ...]
    if not listen.address:
        names, why = _SOCKET_SETTINGS, "systemd creates the socket"
        hint = "set Backlog=, SocketMode=, SocketUser= or SocketGroup= in the socket unit"
    elif not listen.address.startswith("unix:"):
        names, why, hint = _UNIX_SOCKET_SETTINGS, "it applies to Unix sockets only", "remove it"
    else:
        return
    for name in names:
        if getattr(listen, name) != getattr(_DEFAULT, name):
            yield Contradiction(f"{path}.{name}", f"no effect: {why}", hint)


def _has_certificate(settings: Settings, secrets: Collection[str]) -> bool:
    return bool(settings.tls.certificate) or "tls.certificate" in secrets


def _in_kind(settings: Settings, kind: ApplicationKind) -> Iterator[Contradiction]:
    for field in leaves():
        if kind.name not in field.kinds and get(settings, field.path) != field.default:
            message = f"no effect for an application of kind {kind.name}"
            hint = f"remove it; it applies to kind {' and '.join(field.kinds)}"
            yield Contradiction(field.path, message, hint)
    if not kind.http and not any(listen.has_opening for listen in settings.listen):
        for setting in ("http.header_timeout", "http.connections"):
            if get(settings, setting) != get(Settings(), setting):
                message = f"no effect for kind {kind.name} without tls or proxy_protocol"
                yield Contradiction(setting, message, "remove it")
    if not kind.warm_up_requests and any(map(is_request, settings.app.warm_up)):
        message = f"an application of kind {kind.name} cannot be sent requests before the fork"
        yield Contradiction("app.warm_up", message, "name functions: MODULE:FUNCTION")
    if settings.memory.refork.after and kind.refork_refusal and settings.app.preload:
        yield Contradiction("memory.refork.after", kind.refork_refusal, "remove it")


def _without_preload(settings: Settings) -> Iterator[Contradiction]:
    hint = "remove it, or app.preload: false"
    if settings.memory.immortal is True:
        message = "app.preload is false: no object of the application exists before the fork"
        yield Contradiction("memory.immortal", message, hint)
    if settings.memory.refork.after:
        yield Contradiction("memory.refork.after", settings.refork_refusal, hint)


def _without_listener(settings: Settings, secrets: Collection[str]) -> Iterator[Contradiction]:
    # A certificate that is not used: the administrator expects TLS, and would serve plain text.
    if _has_certificate(settings, secrets) and not any(one.tls for one in settings.listen):
        hint = "set tls: true in an entry of listen, or remove the certificate"
        yield Contradiction("tls.certificate", "no listener speaks TLS", hint)
    proxied = any(one.proxy_protocol for one in settings.listen)
    if settings.proxy.trusted and settings.proxy.headers == "off" and not proxied:
        message = "no information from these proxies is used"
        hint = "set proxy.headers, or proxy_protocol in an entry of listen"
        yield Contradiction("proxy.trusted", message, hint)


def _without_effect(settings: Settings, secrets: Collection[str]) -> Iterator[Contradiction]:
    yield from _in_tls(settings, secrets)
    log = settings.access_log
    if log.format != AccessLogSettings().format and log.target in {"off", "journal"}:
        message = f"no effect with access_log.target: {log.target}"
        yield Contradiction("access_log.format", message, "it applies to stderr or a file")
    if settings.control.socket == "off":
        for name in ("mode", "group"):
            if getattr(settings.control, name) != getattr(ControlSettings(), name):
                yield Contradiction(f"control.{name}", "there is no control socket", "remove it")


def _in_tls(settings: Settings, secrets: Collection[str]) -> Iterator[Contradiction]:
    tls = settings.tls
    if not _has_certificate(settings, secrets):
        for field in leaves(TlsSettings, "tls."):
            if get(settings, field.path) != field.default or field.path in secrets:
                yield Contradiction(
                    field.path, "no effect without a certificate", "set tls.certificate"
                )
        return
    authorities = bool(tls.client_ca) or "tls.client_ca" in secrets
    if authorities and tls.verify == "off":
        hint = "set tls.verify to required or optional"
        yield Contradiction("tls.client_ca", "no effect: tls.verify is off", hint)
    if not authorities and tls.verify != "off":
        message = "no authority is set that signs the certificates of clients"
        yield Contradiction("tls.verify", message, "set tls.client_ca")
    if tls.ciphers and tls.minimum_version == "1.3":
        message = "no effect with tls.minimum_version: 1.3: these are ciphers of TLS 1.2"
        yield Contradiction("tls.ciphers", message, "remove it")


def _in_sizes(settings: Settings) -> Iterator[Contradiction]:
    workers = settings.workers
    if workers.max and workers.count != "auto":
        hint = "remove one of them: count is for a fixed size, min and max are for an elastic pool"
        yield Contradiction("workers.count", "count and max exclude each other", hint)
    for name in ("min", "spare"):
        setting, value = f"workers.{name}", getattr(workers, name)
        if value and not workers.max:
            hint = "set workers.max as well; a fixed size is workers.count"
            yield Contradiction(setting, f"{name} requires max", hint)
        elif value > workers.max:
            message = f"{value} exceeds workers.max, {workers.max}"
            yield Contradiction(setting, message, "set at most workers.max")
    total = settings.http.spool_total
    if total and total < settings.http.max_body:
        message = "less than http.max_body: the largest body is always refused"
        yield Contradiction("http.spool_total", message, "set at least http.max_body")


def _in_times(settings: Settings) -> Iterator[Contradiction]:
    timeouts = settings.timeouts
    if timeouts.request and timeouts.slow >= timeouts.request:
        message = "never reached: timeouts.request kills the worker first"
        yield Contradiction("timeouts.slow", message, "set less than timeouts.request")
