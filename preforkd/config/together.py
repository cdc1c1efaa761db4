"""What no setting can tell by itself: settings that contradict each other, or need another one."""

import re
from collections.abc import Collection, Iterator

from msgspec import Struct

from preforkd.config.fields import get
from preforkd.config.settings import Settings
from preforkd.config.target import is_request, no_refork

_PROBE = re.compile(r"/[!-\"$->@-~]*")


class Contradiction(Struct, frozen=True):
    """The setting to blame, what is wrong, and what to do."""

    setting: str
    message: str
    hint: str


def contradictions(settings: Settings, secrets: Collection[str]) -> Iterator[Contradiction]:
    """Yield what does not fit together; ``secrets`` are settings whose values are in credentials."""
    yield from _in_listeners(settings, secrets)
    yield from _in_application(settings)
    yield from _in_sizes(settings)
    yield from _in_times(settings)


def _in_listeners(settings: Settings, secrets: Collection[str]) -> Iterator[Contradiction]:
    trusts = bool(settings.proxy.trusted)
    hint = "list its addresses in proxy.trusted"
    for index, listen in enumerate(settings.listen):
        path = f"listen[{index}]"
        if listen.tls and not settings.tls.certificate and "tls.certificate" not in secrets:
            yield Contradiction(f"{path}.tls", "TLS needs a certificate", "set tls.certificate")
        if listen.proxy_protocol and not trusts:
            yield Contradiction(f"{path}.proxy_protocol", "no proxy is trusted", hint)
    if settings.proxy.headers != "off" and not trusts:
        yield Contradiction("proxy.headers", "no proxy is trusted", hint)
    for setting in ("http.healthy", "http.ready"):
        path = get(settings, setting)
        if path and not _PROBE.fullmatch(path):
            yield Contradiction(setting, f"{path!r} is no path", "for example /-/healthy")


def _in_application(settings: Settings) -> Iterator[Contradiction]:
    kind = settings.app.target.partition(":")[0]
    if kind != "wsgi" and any(map(is_request, settings.app.warm_up)):
        message = f"an application of kind {kind} is sent no requests"
        yield Contradiction("app.warm_up", message, "name functions: MODULE:FUNCTION")
    if settings.memory.refork.after and (reason := no_refork(kind)):
        yield Contradiction("memory.refork.after", reason, "leave it out")


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


def _in_times(settings: Settings) -> Iterator[Contradiction]:
    timeouts = settings.timeouts
    if timeouts.request and timeouts.slow >= timeouts.request:
        message = "no request lasts so long: timeouts.request ends it before"
        yield Contradiction("timeouts.slow", message, "write less than timeouts.request")
