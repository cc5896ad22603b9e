"""Decides which library names an expression may stand for: through imports, aliases, attributes and getattr.

Names are read without regard to the order of statements or to scopes: a name stands for everything that it is ever
bound to in its module, so that hiding a binding does not help. `f()` is written for what a call of `f` returns:
`s = socket.socket(); s.connect` reads as `socket.socket().connect`. Modules of the tree itself begin with a dot.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterator, Mapping

from evaluators.inspection.folding import Folder

_ROUNDS = 4
_MAX_DEPTH = 40
_MAX_NAME = 200
_MAX_MEANINGS = 16
_BUILTINS = frozenset(dir(builtins))
_MODULES = {"posixpath": "os.path", "ntpath": "os.path", "posix": "os", "_socket": "socket", "__builtins__": "builtins"}
_DICTIONARY = "__dict__"

Bindings = Mapping[str, frozenset[str]]


class Names:
    """The names of one module. `resolve` answers with canonical dotted names; none for what is not known."""

    def __init__(self, tree: ast.Module, place: tuple[str, ...], own: frozenset[str], folder: Folder) -> None:
        """`place`: the packages that the module is in; `own`: the tree's top-level modules."""
        self._folder = folder
        self._own = own
        self._place = place
        self._others: Mapping[str, Names] = {}
        self._functions = _defined_for_good(tree)
        self.bindings: dict[str, frozenset[str]] = {}
        self._known: dict[int, frozenset[str]] = {}
        self._assigned = list(_assignments(tree))
        for name, meaning in self._imports(tree):
            self._bind(name, frozenset({meaning}))

    def link(self, others: Mapping[str, Names]) -> None:
        """The tree's other modules by dotted name; then follow assignments, whatever their order."""
        self._others = others
        for _ in range(_ROUNDS):
            before = dict(self.bindings)
            self._known.clear()
            self._folder.forget()
            for key, value in self._assigned:
                self._bind(key, self.resolve(value))
            if self.bindings == before:
                return
        self._known.clear()
        self._folder.forget()

    def _bind(self, key: str, meanings: frozenset[str]) -> None:
        if meanings:
            merged = sorted(self.bindings.get(key, frozenset()) | meanings)
            self.bindings[key] = frozenset(merged[:_MAX_MEANINGS])

    def _imports(self, tree: ast.Module) -> Iterator[tuple[str, str]]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.name if alias.asname else alias.name.partition(".")[0]
                    yield alias.asname or name, self.module(name)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield alias.asname or alias.name, self.imported(node, alias.name)

    def imported(self, node: ast.ImportFrom, name: str) -> str:
        """What `from … import name` brings."""
        if not node.level:
            return self.canonical(f"{self._rooted(node.module or '')}.{name}")
        package = self._place[: len(self._place) - node.level + 1]
        return "." + ".".join(part for part in (*package, node.module or "", name) if part)

    def module(self, name: str) -> str:
        """What `import name` brings."""
        return self.canonical(self._rooted(name))

    def _rooted(self, module: str) -> str:
        """A module of the tree gets a dot in front, unless it poses as one of the standard library."""
        top = module.partition(".")[0]
        return f".{module}" if top in self._own and top not in sys.stdlib_module_names else module

    def canonical(self, name: str) -> str:
        """Private and platform spellings of standard modules read as the public ones."""
        head, dot, rest = name.partition(".")
        return _MODULES.get(head, head) + dot + rest

    def resolve(self, node: ast.AST | None, depth: int = 0) -> frozenset[str]:
        """Everything that the expression may stand for."""
        if node is None or depth > _MAX_DEPTH:
            return frozenset()
        key = id(node)
        if key not in self._known:
            self._known[key] = frozenset()  # a name that is defined by itself ends here
            found = {self.canonical(name) for name in self._resolve(node, depth + 1) if len(name) <= _MAX_NAME}
            found |= {more for name in found for more in self._elsewhere(name)}
            self._known[key] = frozenset(sorted(found)[:_MAX_MEANINGS])
        return self._known[key]

    def _resolve(self, node: ast.AST, depth: int) -> Iterator[str]:
        match node:
            case ast.Name(id=name):
                yield from self._named(name)
            case ast.Attribute(value=owner, attr=attribute):
                if (key := spelled(node)) is not None:
                    yield from self.bindings.get(key, ()) if "." in key else ()
                for name in self.resolve(owner, depth):
                    yield name if attribute == _DICTIONARY else f"{name}.{attribute}"
            case ast.Call():
                yield from self._call(node, depth)
            case ast.Subscript(value=owner, slice=part):
                yield from self._item(owner, part, depth)
            case ast.NamedExpr(value=value) | ast.Await(value=value) | ast.Starred(value=value):
                yield from self.resolve(value, depth)
            case ast.IfExp(body=body, orelse=other):
                yield from self.resolve(body, depth) | self.resolve(other, depth)
            case ast.BoolOp(values=values):
                for value in values:
                    yield from self.resolve(value, depth)

    def _named(self, name: str) -> Iterator[str]:
        yield from self.bindings.get(name, ())
        if name == "__builtins__":
            yield "builtins"
        elif name in _BUILTINS and name not in self._functions:
            yield f"builtins.{name}"

    def _call(self, node: ast.Call, depth: int) -> Iterator[str]:
        for name in self.resolve(node.func, depth):
            first = node.args[0] if node.args else None
            text = self._folder.text(first)
            match name:
                case "builtins.getattr" if len(node.args) >= 2:
                    attribute = self._folder.text(node.args[1])
                    yield from (f"{owner}.{attribute}" for owner in self.resolve(first, depth) if attribute)
                case "builtins.vars" if first is not None:
                    yield from self.resolve(first, depth)
                case "builtins.__import__" | "importlib.import_module" | "importlib.__import__" if text:
                    whole = name.endswith("import_module") or len(node.args) > 3
                    yield self._rooted(text if whole else text.partition(".")[0])
                case "operator.attrgetter" if text:
                    yield f"operator.attrgetter:{text}"
                case _ if name.startswith("operator.attrgetter:"):
                    yield from (f"{owner}.{name.partition(':')[2]}" for owner in self.resolve(first, depth))
                case "functools.partial":
                    yield from self.resolve(first, depth)
                case _:
                    yield f"{name}()"

    def _item(self, owner: ast.expr, part: ast.expr, depth: int) -> Iterator[str]:
        """`sys.modules["os"]`, `os.__dict__["system"]`, `vars(os)["system"]`, `globals()["os"]`."""
        key = self._folder.text(part)
        if key is None:
            return
        for name in self.resolve(owner, depth):
            if name == "sys.modules":
                yield self._rooted(key)
            elif name in ("builtins.globals()", "builtins.locals()"):
                yield from self._named(key)
            elif is_dictionary(owner, self, depth):
                yield f"{name}.{key}"

    def _elsewhere(self, name: str) -> frozenset[str]:
        """What a name of another module of the tree stands for there."""
        if not name.startswith("."):
            return frozenset()
        parts = name[1:].split(".")
        for size in range(len(parts) - 1, 0, -1):
            other = self._others.get(".".join(parts[:size]))
            if other is not None and other is not self:
                tail = "".join(f".{part}" for part in parts[size + 1 :])
                return frozenset(f"{meaning}{tail}" for meaning in other.bindings.get(parts[size], ()))
        return frozenset()


def is_dictionary(node: ast.AST, names: Names, depth: int = 0) -> bool:
    """Whether the expression is the dictionary of the module or object that it resolves to."""
    if isinstance(node, ast.Attribute):
        return node.attr == _DICTIONARY
    return isinstance(node, ast.Call) and "builtins.vars" in names.resolve(node.func, depth)


def spelled(node: ast.AST) -> str | None:
    """`self.clock` for a chain of plain names; None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of everything that binds a name or an attribute to an expression."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    yield from _pairs(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
                yield from _pairs(target, value)
            case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
                yield from _pairs(target, value)
            case ast.For(target=target, iter=ast.Tuple(elts=elements) | ast.List(elts=elements)):
                for element in elements:
                    yield from _pairs(target, element)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Tuple | ast.List):
        if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
            for part, element in zip(target.elts, value.elts, strict=True):
                yield from _pairs(part, element)
    elif (key := spelled(target)) is not None:
        yield key, value


def _defined_for_good(tree: ast.Module) -> frozenset[str]:
    """Functions and classes of the module's top level that nothing deletes: they do hide a builtin."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    deletions = (target for node in ast.walk(tree) if isinstance(node, ast.Delete) for target in node.targets)
    deleted = {target.id for target in deletions if isinstance(target, ast.Name)}
    return frozenset(node.name for node in tree.body if isinstance(node, kinds)) - deleted


def single_constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Names that are assigned once in the whole module, by a plain assignment."""
    stores: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            stores[node.id] = stores.get(node.id, 0) + 1
        elif isinstance(node, ast.arg):
            stores[node.arg] = 2
    return {key: value for key, value in _assignments(tree) if stores.get(key) == 1}
