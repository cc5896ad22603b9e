"""Decides what there is to inspect: a candidate's files, the Python among them parsed, its names and texts resolved."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from evaluators.inspection.folding import Folder
from evaluators.inspection.names import Names, single_constants
from evaluators.target_schema import InspectionTable

MAX_PYTHON_BYTES = 4 << 20
"""Of all Python of a tree: bounds what parsing costs."""
_FOLDED = (ast.Constant, ast.BinOp, ast.JoinedStr, ast.Call, ast.Subscript)


@dataclass(frozen=True, slots=True)
class Reference:
    """A place that names something of a library."""

    name: str
    node: ast.AST


@dataclass(frozen=True, slots=True)
class Literal:
    """A text that stands in the code, or that code puts together from constants; never a docstring."""

    text: str
    node: ast.AST


class Module:
    """One Python file. Everything is computed once and never changes."""

    def __init__(self, path: str, data: bytes, own: frozenset[str]) -> None:
        """
        Raises:
            SyntaxError, ValueError, RecursionError, MemoryError: it does not parse.
        """
        self.path = path
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes: the candidate's affair
            self.tree = ast.parse(data, filename=path)
        self.text = data.decode("utf-8", errors="replace")
        self.constants = single_constants(self.tree)
        self.folder = Folder(self.constants)
        place = PurePosixPath(path)
        self.dotted = ".".join(place.parts[:-1] + ((place.stem,) if place.stem != "__init__" else ()))
        self.names = Names(self.tree, place.parts[:-1], own, self.folder)
        self.folder.names_of = self.names.resolve

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        return tuple(ast.walk(self.tree))

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        return {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}

    def line(self, node: ast.AST) -> int:
        """Where a node begins."""
        return int(getattr(node, "lineno", 0))

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """Parent, its parent, … up to the module."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def function_of(self, node: ast.AST) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        """The innermost function around a node."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return next((above for above in self.above(node) if isinstance(above, kinds)), None)

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """Imports, and every expression that names something of a library."""
        found: list[Reference] = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found += [Reference(self.names.module(alias.name), node) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [Reference(self.names.imported(node, alias.name), node) for alias in node.names]
            elif isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
                names = sorted(self.names.resolve(node))  # what a call returns adds nothing to what is called
                found += [Reference(name, node) for name in names if not name.endswith("()")]
        return tuple(found)

    @cached_property
    def calls(self) -> tuple[tuple[str, ast.Call], ...]:
        """(canonical name of the function, call)."""
        return tuple(
            (name, node) for node in self.nodes if isinstance(node, ast.Call) for name in self.names.resolve(node.func)
        )

    @cached_property
    def literals(self) -> tuple[Literal, ...]:
        """Every text, the largest expression that folds to one."""
        found: list[Literal] = []
        waiting: list[ast.AST] = [self.tree]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # a docstring, or a text that does nothing
            text = self.folder.text(node) if isinstance(node, _FOLDED) else None
            if text is not None:
                found.append(Literal(text, node))
            if text is None or not isinstance(node, ast.Constant | ast.BinOp):
                waiting += ast.iter_child_nodes(node)
        return tuple(found)

    @cached_property
    def stores(self) -> tuple[Reference, ...]:
        """Everything of a library that is assigned, deleted or set: `time.time = …`, setattr, `vars(time)[…] = …`."""
        found: list[Reference] = []
        for node in self.nodes:
            if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
                found += [Reference(name, node) for name in self._stored(node)]
        for name, call in self.calls:
            if name in ("builtins.setattr", "builtins.delattr") and len(call.args) >= 2:
                attribute = self.folder.text(call.args[1]) or "{}"
                found += [Reference(f"{owner}.{attribute}", call) for owner in self.names.resolve(call.args[0])]
            elif name.endswith((".__setattr__", ".update", ".setdefault", ".pop")):
                found.append(Reference(name.rpartition(".")[0] + ".{}", call))
        return tuple(found)

    def _stored(self, node: ast.Attribute | ast.Subscript) -> Iterator[str]:
        if isinstance(node, ast.Attribute):
            yield from (f"{owner}.{node.attr}" for owner in self.names.resolve(node.value))
        else:
            key = self.folder.text(node.slice) or "{}"
            yield from (f"{owner}.{key}" for owner in self.names.resolve(node.value))


@dataclass(frozen=True)
class SourceTree:
    """A candidate's files by path, and what its target permits."""

    files: Mapping[str, bytes]
    modules: tuple[Module, ...]
    limits: InspectionTable


def read_tree(files: Mapping[str, bytes], limits: InspectionTable) -> tuple[SourceTree, list[tuple[str, int, str]]]:
    """The tree, and (path, line, what is wrong) for Python that cannot be read."""
    sources = {path: data for path, data in sorted(files.items()) if path.endswith((".py", ".pyi"))}
    size = sum(map(len, sources.values()))
    if size > MAX_PYTHON_BYTES:
        largest = max(sources, key=lambda path: len(sources[path]))
        what = f"expected at most {MAX_PYTHON_BYTES} bytes of Python in all, got {size}"
        return SourceTree(files, (), limits), [(largest, 0, what)]
    own = frozenset(PurePosixPath(path).parts[0].removesuffix(".py") for path in sources)
    modules, problems = [], []
    for path, data in sources.items():
        try:
            modules.append(Module(path, data, own))
        except SyntaxError as error:
            problems.append((path, error.lineno or 0, error.msg))
        except (ValueError, RecursionError, MemoryError) as error:
            problems.append((path, 0, str(error) or type(error).__name__))
    others = {module.dotted: module.names for module in modules}
    for _ in range(2):  # a name that is handed on through a second module
        for module in modules:
            module.names.link(others)
    return SourceTree(files, tuple(modules), limits), problems
