"""Hooks: functions of the application that preforkd calls at points of a process's life.

``hooks: module:object`` names any object; those of its attributes that exist are called:

====================  =========================================================================
zygote_loaded()       in the zygote, when the application is loaded and warm, before the first fork
after_fork()          in a new worker, before anything else of it runs (with app.preload: false after
                      the application is loaded); in a zygote that was forked from a worker too
before_refork()       in a warm worker, before it forks the next zygote; if it raises, it does not
worker_started()      in a worker, before it is ready
worker_leaving()      in a worker, after its last request
request_begun(environ), request_ended(environ, status)
                      around each request (kind wsgi); the status is a number
====================  =========================================================================

An exception of a hook is logged and goes no further.
"""

import difflib
import inspect
import logging
from collections.abc import Callable
from typing import Any

from preforkd.apps import loader, signatures
from preforkd.config.kinds import KINDS
from preforkd.config.target import parse_reference

logger = logging.getLogger("preforkd.app")

SETTING = "hooks"
HOOKS = {
    "zygote_loaded": 0,
    "after_fork": 0,
    "before_refork": 0,
    "worker_started": 0,
    "worker_leaving": 0,
    "request_begun": 1,
    "request_ended": 2,
}
"""The hooks, and the number of their arguments."""
_OF_REQUESTS = ("request_begun", "request_ended")


class Hooks:
    """The hooks of one application: those of `HOOKS` that it has, by name."""

    def __init__(self, found: dict[str, Callable[..., Any]] | None = None) -> None:
        self._found = found or {}

    @property
    def of_requests(self) -> bool:
        """Return whether a hook is called around requests."""
        return "request_begun" in self._found or "request_ended" in self._found

    def call(self, name: str, *arguments: Any) -> str:
        """Call a hook, if the application has it.

        Returns its failure in one line, which was logged with its traceback; empty: it did not fail.
        """
        hook = self._found.get(name)
        if hook is None:
            return ""
        try:
            hook(*arguments)
        except (Exception, SystemExit) as error:
            logger.exception("the hook %s failed", name)
            return f"the hook {name} failed: {type(error).__name__}: {error}"
        return ""


def load(text: str, kind: str, *, preload: bool) -> Hooks:
    """Import the object that the setting names, and return its hooks; empty: none.

    Raises ConfigurationError for an object that does not exist, or a hook that cannot be called for this
    kind of application or without ``preload``, and ApplicationError for code that fails.
    """
    if not text:
        return Hooks()
    holder = loader.find(parse_reference(text), SETTING)
    found = {name: hook for name in HOOKS if (hook := getattr(holder, name, None)) is not None}
    for name, hook in found.items():
        if not callable(hook):
            kind = type(hook).__name__
            raise loader.setting_error(
                SETTING, f"{text}: {name} is not callable, it is of type {kind}"
            )
        if _needs_instance(holder, hook):
            hint = f"{text}() makes one"
            raise loader.setting_error(
                SETTING, f"{text} is a class: {name} needs an instance", hint=hint
            )
        if reason := _unusable(name, hook, kind):
            raise loader.setting_error(SETTING, f"{text}: {name} {reason}")
    if not preload and "zygote_loaded" in found:
        reason = "zygote_loaded is not called with app.preload: false: the zygote does not load the application"
        hint = "do it in worker_started, or remove it"
        raise loader.setting_error(SETTING, f"{text}: {reason}", hint=hint)
    misspelled = _misspelled(holder)
    if not found:
        hint = misspelled[0] if misspelled else f"known are {', '.join(HOOKS)}"
        raise loader.setting_error(SETTING, f"{text} has none of the hooks", hint=hint)
    for meant in misspelled:
        logger.warning("hooks: %s: %s", text, meant)
    return Hooks(found)


def _unusable(name: str, hook: Any, kind: str) -> str:
    """Return why a hook would never run properly; empty: it would."""
    count = HOOKS[name]
    if signatures.is_async(hook):
        return "is asynchronous; hooks are not awaited"
    if not signatures.takes(hook, count):
        return f"cannot be called with {count} argument{'' if count == 1 else 's'}"
    if not KINDS[kind].request_hooks and name in _OF_REQUESTS:
        return f"is called for kind wsgi only, and the application is of kind {kind}"
    return ""


def _needs_instance(holder: Any, hook: Any) -> bool:
    return (
        inspect.isclass(holder)
        and inspect.isfunction(hook)
        and hook.__code__.co_varnames[:1] == ("self",)
    )


def _misspelled(holder: Any) -> list[str]:
    # A misspelled hook is never called, without any sign of it.
    names = [name for name in dir(holder) if not name.startswith("_") and name not in HOOKS]
    return [
        f"did you mean {hook} by {name}?"
        for name in names
        for hook in difflib.get_close_matches(name, HOOKS, 1, 0.85)
    ]
