"""Check whether an object can be called as an application of its kind, when it is loaded.

The check reads signatures and never calls the object. An object without a readable signature, or with any
arguments, passes: a false refusal would keep a working application from starting.
"""

import inspect
import socketserver
from collections.abc import Callable
from typing import Any

from preforkd.config.kinds import KINDS, ApplicationKind
from preforkd.config.target import Target


def fault(application: Any, target: Target) -> tuple[str, str] | None:
    """Return why an object is no application of the target's kind, and a hint; None: it may be one."""
    kind = KINDS[target.kind]
    name = target.name
    if not callable(application):
        return _not_callable(application, target)
    if inspect.isclass(application):
        if not kind.http and issubclass(application, socketserver.BaseRequestHandler):
            return None
        if (found := _fault_of_class(application, kind, name)) is not None:
            return found
    if (found := _fault_of_manner(application, kind, name)) is not None:
        return found
    signature = _signature(application)
    return None if signature is None else _fault_of_arguments(signature, kind, name)


def is_async(function: Any) -> bool:
    """Return whether calling this returns a coroutine."""
    return _is(inspect.iscoroutinefunction, function)


def takes(function: Any, count: int) -> bool:
    """Return whether this can be called with ``count`` arguments; True if its signature is unknown."""
    signature = _signature(function)
    return signature is None or _takes(signature, count)


def _is(what: Callable[[Any], bool], function: Any) -> bool:
    return what(function) or (not inspect.isclass(function) and what(type(function).__call__))


def _not_callable(application: Any, target: Target) -> tuple[str, str]:
    if not target.call:
        return f"it is not callable, it is of type {type(application).__name__}", ""
    if inspect.iscoroutine(application):
        application.close()
        return "the factory is asynchronous, and no event loop runs yet", "write def"
    made = "None" if application is None else f"an object of type {type(application).__name__}"
    return f"the factory has returned {made}, which is not callable", ""


def _fault_of_class(application: type, kind: ApplicationKind, name: str) -> tuple[str, str] | None:
    new: Any = application.__new__
    usual = type(application).__call__ is type.__call__ and new is object.__new__
    needed = kind.result  # of the instances of a class that is itself the application
    if not usual or not needed or hasattr(application, needed):
        return None
    if issubclass(application, socketserver.BaseRequestHandler):
        hint = f"write stream:{name}"
    elif _takes(_signature(application), 0):
        hint = f"write {kind.name}:{name}()"
    else:
        hint = f"name an instance of {name}"
    return f"it is a class whose instances have no {needed}: they are no answers", hint


def _fault_of_manner(application: Any, kind: ApplicationKind, name: str) -> tuple[str, str] | None:
    if not kind.event_loop and is_async(application):
        known = _takes(_signature(application), 3)
        hint = f"write asgi:{name}" if known else "write def instead of async def"
        return f"it is asynchronous, and kind {kind.name} has no event loop", hint
    if _is(inspect.isasyncgenfunction, application):
        return "it is an asynchronous generator, whose code would never run", "it must not yield"
    if not kind.result and _is(inspect.isgeneratorfunction, application):
        return "it is a generator, whose code would never run", "a stream handler must not yield"
    return None


def _fault_of_arguments(
    signature: inspect.Signature, kind: ApplicationKind, name: str
) -> tuple[str, str] | None:
    wanted = kind.arguments
    if _takes(signature, len(wanted)):
        return _fault_of_names(signature, kind, name)
    if _takes(signature, 0):
        hint = f"write {kind.name}:{name}(), if it is a factory"
    elif kind.event_loop and _takes(signature, 2):
        hint = f"write wsgi:{name}, if it is a WSGI application"
    elif not kind.event_loop and _takes(signature, 3):
        hint = f"write asgi:{name}, if it is an ASGI application"
    else:
        hint = ""
    return f"it takes {_shown(signature)}, but kind {kind.name} passes ({', '.join(wanted)})", hint


def _fault_of_names(
    signature: inspect.Signature, kind: ApplicationKind, name: str
) -> tuple[str, str] | None:
    parameters = list(signature.parameters.values())
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return None
    names = [one.name.lstrip("_") for one in parameters]
    if not kind.http and names[:2] == ["environ", "start_response"]:
        return f"it takes {_shown(signature)} as a WSGI application does", f"write wsgi:{name}"
    known = {"environ", "env", "start_response", "scope", "connection", "request"}
    if _takes(signature, 0) and not known & set(names):
        # An application cannot work without its arguments, a factory can without its options.
        hint = f"write {kind.name}:{name}()"
        return f"it takes {_shown(signature)}, all of them optional: it is a factory", hint
    return None


def _signature(function: Any) -> inspect.Signature | None:
    try:
        # A decorator may take other arguments than the function that it wraps.
        return inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None


def _shown(signature: inspect.Signature) -> str:
    empty = inspect.Signature.empty
    plain = [one.replace(annotation=empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=empty))


def _takes(signature: inspect.Signature | None, count: int) -> bool:
    if signature is None:
        return False
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True
