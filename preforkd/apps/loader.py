"""Load an application by name, and report why it does not load.

`load` runs in the zygote, or in ``preforkd check --import``: it executes the application's code.
"""

import difflib
import importlib
import os
import sys
import traceback
from typing import Any

from preforkd.apps import signatures
from preforkd.config.encoding import native
from preforkd.config.target import Reference, Target
from preforkd.errors import (
    UNKNOWN_PLACE,
    ApplicationError,
    ConfigurationError,
    PreforkdError,
    Problem,
    SystemFailure,
    shortage,
)


def prepare(directory: str) -> str:
    """Enter the application's directory, and put it first on the module search path.

    Returns the directory without symbolic links, as printable text. Raises ConfigurationError when it
    cannot be entered, or was deleted.
    """
    if directory:
        try:
            os.chdir(native(directory))
        except OSError as error:
            raise setting_error("app.directory", f"{directory}: {error.strerror}") from error
    home = _here()
    if not home:
        hint = "set app.directory to the application's directory"
        reason = "the directory in which preforkd was started does not exist any more"
        raise setting_error("app.directory", reason, hint=hint)
    if sys.path[:1] != [home]:
        sys.path.insert(0, home)
    return os.fsencode(home).decode(errors="replace")


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""  # it was deleted


def load(target: Target) -> Any:
    """Import the target and return the application object.

    Raises ConfigurationError for a name that does not exist or is no application of its kind, and
    ApplicationError, with the application's own traceback, for code that fails.
    """
    setting = "app.target"
    application = find(target, setting)
    if (found := signatures.fault(application, target)) is not None:
        what, hint = found
        raise setting_error(setting, f"{target.name} ({_where(target.module)}): {what}", hint=hint)
    return application


def find(reference: Reference, setting: str) -> Any:
    """Import and return the object that a setting names. Raises what `load` raises, for this setting."""
    found = _import(reference.module, setting)
    for name in reference.attribute.split(".") if reference.attribute else ():
        try:
            found = getattr(found, name)
        except AttributeError:
            raise _no_attribute(reference, found, name, setting) from None
    return _create(reference, found) if reference.call else found


def _import(name: str, setting: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            parent = error.name.rpartition(".")[0]
            about = f" ({parent} is {_where(parent)})" if parent in sys.modules else ""
            raise setting_error(
                setting,
                f"there is no module named {error.name!r}{about}",
                hint="set app.directory to the folder that contains it, or app.python to the "
                "interpreter of the virtual environment where it is installed",
                detail=_search_path(),
            ) from error
        raise application_error(f"importing {name} failed", error) from error
    except (Exception, SystemExit) as error:
        raise application_error(f"importing {name} failed", error) from error


def _create(reference: Reference, factory: Any) -> Any:
    try:
        return factory(*reference.arguments, **reference.keywords)
    except (Exception, SystemExit) as error:
        raise application_error(f"{reference.name} failed", error) from error


def application_error(what: str, error: BaseException) -> PreforkdError:
    """Return the error for an exception of the application's code, with its traceback.

    A lack of memory or descriptors is a SystemFailure.
    """
    hint = used_up = shortage(error)
    if isinstance(error, ModuleNotFoundError):
        hint = (
            f"install {error.name} for {sys.executable}, or set app.python to the interpreter of "
            "the virtual environment where it is installed"
        )
    summary = traceback.format_exception_only(error)[-1].strip()
    error = _without_our_frames(error)
    detail = "".join(traceback.format_exception(error)) + _search_path()
    kind = SystemFailure if used_up else ApplicationError
    return kind(f"{what}: {summary}{_place(error)}", detail=detail, hint=hint)


def _place(error: BaseException) -> str:
    # The text of a SyntaxError has only the last part of its file's path.
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    name = "" if code.co_name == "<module>" else f"in {code.co_name}, "
    return f" ({name}{code.co_filename}:{trace.tb_lineno})"


def _without_our_frames(error: BaseException) -> BaseException:
    # The first frames are those of this file and importlib, which do not help the application's author.
    trace = error.__traceback__
    while trace and trace.tb_next and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    if trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = None
    return error.with_traceback(trace)


def _is_ours(filename: str) -> bool:
    return filename == __file__ or "importlib" in filename


def _search_path() -> str:
    entries = "\n".join(f"  {entry or _here()}" for entry in sys.path)
    return f"module search path of {sys.executable}:\n{entries}\n"


def _no_attribute(target: Reference, holder: Any, name: str, setting: str) -> PreforkdError:
    names = [word for word in dir(holder) if not word.startswith("_")]
    close = difflib.get_close_matches(name, names, 3)
    hint = f"did you mean {' or '.join(close)}?" if close else ""
    hint = _shadowing(target.module) or hint
    message = f"{target.module} ({_where(target.module)}) has no attribute {name!r}"
    partial = getattr(getattr(holder, "__spec__", None), "_initializing", False)
    if partial:
        message += " yet: it is still being imported (a circular import)"
    return setting_error(setting, message, hint=hint)


def _where(name: str) -> str:
    """Return the file of an imported module."""
    module = sys.modules.get(name)
    if (file := getattr(module, "__file__", None)) is not None:
        return str(file)
    if places := list(getattr(module, "__path__", ())):
        return f"a package without __init__.py in {', '.join(map(str, places))}"
    return "built into the interpreter"


def _shadowing(name: str) -> str:
    """Return a hint if a module of the application's directory is shadowed by another of the same name."""
    path = os.path.join(_here(), *name.split("."))
    found = os.path.realpath(_where(name))
    for own in (f"{path}.py", os.path.join(path, "__init__.py")):
        if os.path.exists(own) and os.path.realpath(own) != found:
            return f"{own} is shadowed by a module of the same name; rename it"
    return ""


def setting_error(
    setting: str, message: str, *, hint: str = "", detail: str = ""
) -> ConfigurationError:
    """Return the error for a setting that names an object that is missing or unusable."""
    error = ConfigurationError([Problem(UNKNOWN_PLACE, setting, message)], hint=hint)
    error.detail = detail
    return error
