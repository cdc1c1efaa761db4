"""The kind of an application, as its file shows it: a hint for a target without a kind.

The file is read and not executed.
"""

import ast
import os
from collections.abc import Iterator

from preforkd.config.encoding import native
from preforkd.config.files import read_bounded
from preforkd.config.target import parse_reference

_SIZE_LIMIT = 1 << 20
_MADE_BY = {
    **dict.fromkeys(("Bottle", "Flask", "get_wsgi_application", "make_wsgi_app"), "wsgi"),
    **dict.fromkeys(("FastAPI", "Litestar", "Quart", "Starlette", "get_asgi_application"), "asgi"),
}
"""Classes and functions of frameworks, and the kind of what they return."""


def hint(text: str, directory: str) -> str:
    """Return the target to write for ``MODULE:ATTRIBUTE``, and why; empty if the file does not show it."""
    try:
        reference = parse_reference(text)
        tree = ast.parse(_source(reference.module, directory))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return ""
    for kind, why in _found(tree, reference.attribute):
        return f"write {kind}:{text}: {why}"
    return ""


def _source(module: str, directory: str) -> bytes:
    path = os.path.join(directory, *module.split("."))
    file = f"{path}/__init__.py" if os.path.isdir(native(path)) else f"{path}.py"
    return read_bounded(native(file), _SIZE_LIMIT)


def _found(tree: ast.Module, name: str) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        match node:
            case ast.AsyncFunctionDef(name=found) if found == name:
                yield "asgi", f"{name} is a coroutine function"
            case ast.FunctionDef(name=found, args=arguments) if found == name:
                if len(arguments.args) == 2:
                    yield "wsgi", f"{name} is a function of two arguments"
            case ast.Assign(targets=[ast.Name(id=found)], value=ast.Call(func=maker)) if (
                found == name
            ):
                made_by = ast.unparse(maker).rpartition(".")[2]
                if made_by in _MADE_BY:
                    yield _MADE_BY[made_by], f"{name} is made by {made_by}()"
