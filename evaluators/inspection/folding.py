"""Decides which text or number an expression always stands for, so that a name put together from parts is still read.

Only pure operations on constants are carried out, each bounded in size and all of them by one budget; whatever else
occurs is unknown (None), except inside f-strings, where an unknown part reads as `{}`.
"""

from __future__ import annotations

import ast
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from evaluators.inspection.arithmetic import MAX_SIZE, Constant, binary, call, method

_MAX_DEPTH = 90
_BUDGET = 4 << 20
_MAX_LOOP = 512
_MAX_BITS = 2048


class Budget:
    """What folding may cost in one module: one per expression and one per character made."""

    def __init__(self) -> None:
        self._left = _BUDGET
        self.exhausted = False
        """Whether something was left unread: too long, or too deep."""

    def spend(self, amount: int) -> bool:
        self._left -= amount
        self.exhausted |= self._left < 0
        return self._left >= 0


class Folder:
    """Folds the expressions of one module; `constants` are its names that are assigned once."""

    def __init__(self, constants: Mapping[str, ast.expr], budget: Budget | None = None) -> None:
        self._constants = constants
        self._known: dict[int, Constant | None] = {}
        self.budget = budget or Budget()
        self.names_of: Callable[[ast.expr], frozenset[str]] = lambda node: frozenset(
            {node.id} if isinstance(node, ast.Name) else ()
        )
        """Canonical names of a function that is called; the module's names, once they are known."""

    def fold(self, node: ast.AST | None, depth: int = 0) -> Constant | None:
        """The constant that `node` stands for, or None."""
        if node is None:
            return None
        if depth > _MAX_DEPTH:
            self.budget.exhausted = True
            return None
        key = id(node)
        if key not in self._known:
            self._known[key] = None  # a name that is defined by itself ends here
            found = self._fold(node, depth + 1) if self.budget.spend(1) else None
            size = len(found) if isinstance(found, str | bytes | tuple) else 1
            self._known[key] = found if self.budget.spend(size) else None
        return self._known[key]

    def forget(self) -> None:
        """Fold anew: more names are known now."""
        self._known.clear()

    def text(self, node: ast.AST | None) -> str | None:
        """The same, if it is text; bytes count as Latin-1."""
        found = self.fold(node)
        return found.decode("latin-1") if isinstance(found, bytes) else found if isinstance(found, str) else None

    def _fold(self, node: ast.AST, depth: int) -> Constant | None:
        match node:
            case ast.Constant(value=int() as value) if value.bit_length() > _MAX_BITS:
                return None
            case ast.Constant(value=str() | bytes() | int() | float() as value):
                return value
            case ast.Name(id=name) if name in self._constants:
                return self.fold(self._constants[name], depth)
            case ast.NamedExpr(value=value):
                return self.fold(value, depth)
            case ast.JoinedStr(values=values):
                return self._joined(values, depth)
            case ast.BinOp(left=left, op=op, right=right):
                return binary(op, self.fold(left, depth), self.fold(right, depth))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                number = self.fold(operand, depth)
                return -number if isinstance(number, int | float) else None
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                return _all([self.fold(element, depth) for element in elements])
            case ast.Subscript(value=owner, slice=part):
                return self._slice(self.fold(owner, depth), part, depth)
            case ast.Call():
                return self._call(node, depth)
            case ast.GeneratorExp() | ast.ListComp():
                return self._comprehension(node, depth)
        return None

    def _joined(self, values: list[ast.expr], depth: int) -> str:
        parts = []
        for value in values:
            inner = self.fold(value.value if isinstance(value, ast.FormattedValue) else value, depth)
            parts.append(str(inner) if isinstance(inner, str | int) else "{}")
        return "".join(parts)[:MAX_SIZE]

    def _slice(self, value: Constant | None, part: ast.expr, depth: int) -> Constant | None:
        if not isinstance(value, str | bytes | tuple):
            return None
        if isinstance(part, ast.Slice):
            bounds: list[Any] = [
                None if b is None else self.fold(b, depth) for b in (part.lower, part.upper, part.step)
            ]
            if any(b is not None and not isinstance(b, int) for b in bounds) or bounds[2] == 0:
                return None
            return value[slice(*bounds)]
        index = self.fold(part, depth)
        if isinstance(index, int) and -len(value) <= index < len(value):
            item: Constant = value[index]
            return item
        return None

    def _call(self, node: ast.Call, depth: int) -> Constant | None:
        if len(node.args) == 2 and "builtins.map" in self.names_of(node.func):
            return self._mapped(node.args[0], self.fold(node.args[1], depth))
        arguments = [self.fold(argument, depth) for argument in node.args]
        if any(argument is None for argument in arguments) or node.keywords:
            return None
        if isinstance(node.func, ast.Attribute) and (owner := self.fold(node.func.value, depth)) is not None:
            return method(owner, node.func.attr, arguments)
        return self._applied(node.func, arguments)

    def _applied(self, function: ast.expr, arguments: list[Constant | None]) -> Constant | None:
        made = (call(name, arguments) for name in sorted(self.names_of(function)))
        return next((constant for constant in made if constant is not None), None)

    def _mapped(self, function: ast.expr, items: Constant | None) -> Constant | None:
        """`map(chr, (101, 118, …))`"""
        if not isinstance(items, str | bytes | tuple) or len(items) > _MAX_LOOP:
            return None
        return _all([self._applied(function, [item]) for item in items])

    def _comprehension(self, node: ast.GeneratorExp | ast.ListComp, depth: int) -> Constant | None:
        """`chr(c) for c in (101, 118, …)`, with any foldable expression of the loop's variable."""
        loop = node.generators[0]
        source = self.fold(loop.iter, depth)
        if len(node.generators) != 1 or loop.ifs or not isinstance(loop.target, ast.Name):
            return None
        if not isinstance(source, str | bytes | tuple) or len(source) > _MAX_LOOP:
            return None
        items = []
        for item in source:
            variable: dict[str, ast.expr] = {loop.target.id: ast.Constant(item)}
            inside = Folder(ChainMap(variable, dict(self._constants)), self.budget)
            inside.names_of = self.names_of
            items.append(inside.fold(node.elt, depth) if not isinstance(item, tuple) else None)
        return _all(items)


def _all(items: list[Constant | None]) -> Constant | None:
    return tuple(items) if all(item is not None for item in items) else None
