"""A gunicorn.conf.py, read without executing it."""

import ast
from typing import Any

from preforkd.cli.convert.given import Given, Options, failed
from preforkd.cli.convert.literal import Evaluator, Unknown
from preforkd.errors import Place


def read(text: str, path: str) -> Options:
    """Return what the file assigns and defines, by name. Raises ConfigurationError if it is not Python.

    A function's value is its name. What depends on a condition that is not known has no value, but ``computed``.
    """
    try:
        tree = ast.parse(text, path)
    except (SyntaxError, ValueError) as error:
        place = Place(path, getattr(error, "lineno", 0) or 0, getattr(error, "offset", 0) or 0)
        raise failed(place, f"not Python: {getattr(error, 'msg', error)}") from None
    reader = _Reader(path)
    reader.block(tree.body)
    return reader.options


def unused(text: str, options: Options) -> set[str]:
    """Return the names that the file assigns and does not use itself."""
    used = {
        node.id
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    return {name for name in options if name not in used and not name.startswith("_")}


def _does_nothing(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(each, ast.Pass)
        or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
        for each in body
    )


class _Reader:
    def __init__(self, path: str) -> None:
        self.options: Options = {}
        self._path = path
        self._names: dict[str, Any] = {"__file__": path}
        self._variables: dict[str, tuple[str, ...]] = {}

    def block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            match statement:
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        self._assign(target, value)
                case ast.AnnAssign(target=target, value=ast.expr() as value):
                    self._assign(target, value)
                case ast.AugAssign(target=ast.Name(id=name) as target, op=sign, value=value):
                    self._assign(target, ast.BinOp(ast.Name(name, ast.Load()), sign, value))
                case ast.FunctionDef(name=name, body=body) if not _does_nothing(body):
                    self.options[name] = Given(name, self._place(statement))
                    self._names.pop(name, None)
                case ast.If(test=test, body=body, orelse=orelse):
                    self._branch(statement, test, body, orelse)
                case ast.Try(body=body):
                    self.block(body)
                case ast.For() | ast.While() | ast.With():
                    self._depends(statement, "a loop or a with statement")
                case ast.ImportFrom(names=[ast.alias(name="*")], module=module):
                    self.options["import *"] = Given(f"from {module}", self._place(statement))

    def _place(self, node: ast.AST) -> Place:
        return Place(self._path, getattr(node, "lineno", 0), getattr(node, "col_offset", -1) + 1)

    def _assign(self, target: ast.expr, node: ast.expr) -> None:
        if not isinstance(target, ast.Name):
            self._depends(target, "a part of it is assigned")
            return
        name, place = target.id, self._place(target)
        evaluator = Evaluator(self._names)
        try:
            value = evaluator.value(node)
        except Unknown:
            self.options[name] = Given(None, place, self._expression(node))
            self._names.pop(name, None)
            return
        inner = [each.id for each in ast.walk(node) if isinstance(each, ast.Name)]
        inherited = [variable for each in inner for variable in self._variables.get(each, ())]
        read = tuple(dict.fromkeys([*inherited, *evaluator.variables]))
        self.options[name] = Given(value, place, variables=read)
        self._names[name], self._variables[name] = value, read

    def _expression(self, node: ast.expr) -> str:
        text = " ".join(ast.unparse(node).split())
        inner = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        known = [(name, given.computed) for name, given in self.options.items() if name in inner]
        return ", ".join([text, *(f"{name} = {given}" for name, given in known if given)])

    def _branch(
        self, node: ast.stmt, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt]
    ) -> None:
        try:
            chosen = Evaluator(self._names).value(test)
        except Unknown:
            self._depends(node, f"if {ast.unparse(test)}")
        else:
            self.block(body if chosen else orelse)

    def _depends(self, node: ast.AST, why: str) -> None:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                self.options[inner.id] = Given(None, self._place(inner), why)
                self._names.pop(inner.id, None)
