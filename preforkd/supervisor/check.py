"""Load the application as the service would, in a zygote that exits afterwards: ``check --import``."""

import os
import selectors
import signal
import time

import msgspec
from msgspec.structs import replace

from preforkd.config.configuration import Configuration
from preforkd.config.fields import get
from preforkd.config.settings import Settings
from preforkd.core.text import presentable
from preforkd.errors import Blame, Failure
from preforkd.ipc import messages
from preforkd.ipc.channel import ChannelClosedError, MalformedMessageError
from preforkd.linux import process, stacks
from preforkd.supervisor import children, interpreter
from preforkd.supervisor.children import Launch, ZygoteHandle

_EXIT_TIMEOUT = 5.0
"""Seconds that the zygote has for its exit handlers, which remove what the application created."""
_STACKS_TIMEOUT = 2.0
"""Seconds to wait for the stacks of the zygote."""
_POLL = 0.05
"""Seconds between two checks whether the stacks are complete."""
_HOSTS = "tls.certificates."


def check_application(configuration: Configuration, environment: dict[str, str]) -> Failure | None:
    """Load the application in a zygote that ends afterwards; return why it failed, or None."""
    settings = _without_missing_tls(configuration)
    launch = Launch(1, settings, (), {**environment, **settings.app.environment})
    try:
        zygote = children.new_zygote(1, launch)
    except OSError as error:
        return interpreter.not_executable(settings, error)
    pidfd = zygote.pidfd
    try:
        try:
            failure, reported = _request_load(zygote, configuration, settings)
        except TimeoutError:
            detail = _stacks(zygote)
            process.send_signal(pidfd, signal.SIGKILL)
            limit = f"{settings.timeouts.start:g} s"
            reason = f"the application was not loaded within {limit}"
            return Failure(Blame.APPLICATION, reason, detail)
        if not reported:
            report = _wait(pidfd, settings.timeouts.start)
            if report and (unusable := interpreter.failure_of(settings, report.code)):
                return unusable
            how = report.describe() if report else f"nothing in {settings.timeouts.start:g} s"
            return Failure(Blame.APPLICATION, f"loading the application ended with: {how}")
        return failure
    finally:
        zygote.channel.close()
        zygote.slot_memory.close()
        _wait(pidfd, _EXIT_TIMEOUT)
        process.send_signal(pidfd, signal.SIGKILL)
        _wait(pidfd, None)
        os.close(pidfd)


def _without_missing_tls(configuration: Configuration) -> Settings:
    # A certificate that only systemd passes to the service (a credential) is not there.
    settings = configuration.settings
    if all(_is_known(settings, name) for name in configuration.secrets if name.startswith("tls.")):
        return settings
    return replace(settings, listen=[replace(entry, tls=False) for entry in settings.listen])


def _is_known(settings: Settings, secret: str) -> bool:
    host = secret.removeprefix(_HOSTS)
    return host in settings.tls.certificates if host != secret else bool(get(settings, secret))


def _request_load(
    zygote: ZygoteHandle, configuration: Configuration, settings: Settings
) -> tuple[Failure | None, bool]:
    # Return the failure, and whether the zygote reported a result. Raises TimeoutError.
    deadline = time.monotonic() + settings.timeouts.start
    channel = zygote.channel
    settings = replace(settings, app=replace(settings.app, environment={}))  # as the pool does
    try:
        channel.send(messages.Load(1, msgspec.msgpack.encode(settings), (), load_only=True))
        while _readable(channel.fileno(), deadline - time.monotonic()):
            received = channel.receive(wait=False)
            match received and received.message:
                case messages.Loaded():
                    return None, True
                case messages.LoadFailed(failure=failure):
                    place = configuration.origins.get(failure.setting)
                    return presentable(failure, configuration.secret_texts, place), True
    except (ChannelClosedError, MalformedMessageError):
        return None, False
    raise TimeoutError


def _stacks(zygote: ZygoteHandle) -> str:
    zygote.slot_memory.expect_stacks()
    process.send_signal(zygote.pidfd, stacks.SIGNAL)
    until = time.monotonic() + _STACKS_TIMEOUT
    while not zygote.slot_memory.has_all_stacks() and time.monotonic() < until:
        if _readable(zygote.pidfd, _POLL):
            break  # it has ended
    return zygote.slot_memory.stacks()


def _readable(descriptor: int, timeout: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(max(0.0, timeout)))


def _wait(pidfd: int, timeout: float | None) -> process.ExitReport | None:
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        selector.select(timeout)
    return process.reap(pidfd)
