"""The value of a Python expression that consists of literals, without executing anything.

Known besides literals: names that were assigned before, arithmetic, conversions (``int(...)``), formatted
texts, and variables of the environment with their defaults. Everything else is `Unknown`.
"""

import ast
import operator
import os.path
from collections.abc import Callable, Mapping
from typing import Any

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda one, many: one in many,
}
_CALLS: dict[str, Callable[..., Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "max": max,
    "min": min,
    "len": len,
    "list": list,
    "dict": dict,
    "round": round,
    "os.path.join": os.path.join,
    "os.path.dirname": os.path.dirname,
    "os.path.abspath": os.path.abspath,
    "os.path.realpath": os.path.abspath,
    "path.join": os.path.join,
    "path.dirname": os.path.dirname,
    "path.abspath": os.path.abspath,
}
_METHODS = frozenset({"format", "lower", "upper", "strip", "split", "join", "replace"})
_ENVIRONMENT = frozenset({"os.environ.get", "environ.get", "os.getenv", "getenv", "env.get"})
_SIZE_LIMIT = 100_000


class Unknown(Exception):
    """The value is known only when the expression is executed."""


class Evaluator:
    """Evaluates expressions with these names; ``variables``: those of the environment that were read."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self.variables: list[str] = []

    def value(self, node: ast.expr) -> Any:
        """Return the value of an expression. Raises Unknown."""
        try:
            found = self._value(node)
            if isinstance(found, str):
                found.encode()  # not possible with half of a surrogate pair, which no file can hold
        except Unknown:
            raise
        except Exception as error:
            raise Unknown(str(error)) from error
        if isinstance(found, str | bytes | list | tuple) and len(found) > _SIZE_LIMIT:
            raise Unknown("too long")
        return found

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name) if name in self._names:
                return self._names[name]
            case ast.JoinedStr(values=parts):
                return "".join(self._part(part) for part in parts)
            case ast.Call(keywords=[]):
                return self._call(node)
            case ast.BinOp() | ast.UnaryOp() | ast.BoolOp() | ast.IfExp() | ast.Compare():
                return self._operation(node)
        return self._collection(node)

    def _collection(self, node: ast.expr) -> Any:
        match node:
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                return [self.value(item) for item in items]
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                return {self.value(key): self.value(value) for key, value in pairs if key}
        raise Unknown(type(node).__name__)

    def _operation(self, node: ast.expr) -> Any:
        match node:
            case ast.BinOp(left=left, op=sign, right=right):
                return self._binary(sign, self.value(left), self.value(right))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self.value(operand)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.value(operand)
            case ast.BoolOp(op=sign, values=values):
                return self._either(isinstance(sign, ast.Or), values)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.value(body if self.value(test) else orelse)
            case ast.Compare(left=left, ops=[sign], comparators=[right]) if (
                type(sign) in _COMPARISONS
            ):
                return _COMPARISONS[type(sign)](self.value(left), self.value(right))
        raise Unknown(type(node).__name__)

    @staticmethod
    def _binary(sign: ast.operator, left: Any, right: Any) -> Any:
        if type(sign) not in _BINARY:
            raise Unknown(type(sign).__name__)
        if isinstance(sign, ast.Mult) and not all(
            isinstance(one, int | float) for one in (left, right)
        ):
            raise Unknown("a repeated text")  # of any length
        return _BINARY[type(sign)](left, right)

    def _either(self, until: bool, nodes: list[ast.expr]) -> Any:
        found: Any = None
        for node in nodes:
            found = self.value(node)
            if bool(found) == until:
                break
        return found

    def _part(self, node: ast.expr) -> str:
        if isinstance(node, ast.FormattedValue):
            if node.format_spec is not None or node.conversion != -1:
                raise Unknown("a format")
            return str(self.value(node.value))
        return str(self.value(node))

    def _call(self, node: ast.Call) -> Any:
        name = ast.unparse(node.func)
        if name in _ENVIRONMENT and node.args:
            self.variables.append(str(self.value(node.args[0])))
            return self.value(node.args[1]) if len(node.args) > 1 else None
        arguments = [self.value(each) for each in node.args]
        if name in _CALLS:
            return _CALLS[name](*arguments)
        if isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
            text = self.value(node.func.value)
            if isinstance(text, str):
                return getattr(text, node.func.attr)(*arguments)
        raise Unknown(name)
