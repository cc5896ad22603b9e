"""Decides whether code makes code at run time, or hides what it does from a reader."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from evaluators.inspection.finding import Rule, Spot, covered, members
from evaluators.inspection.names import is_dictionary
from evaluators.inspection.tree import Module, Reference, SourceTree

_MAKERS = (
    *members("builtins", "eval exec compile globals breakpoint"),
    *("marshal", "types.CodeType", "types.FunctionType", "runpy", "codeop", "imp", "pydoc", "dis", "cython"),
    *members("code", "InteractiveInterpreter InteractiveConsole interact"),
    *("sys._getframe", "gc.get_objects", "gc.get_referrers", "inspect.stack", "inspect.currentframe"),
    *("_frozen_importlib", "_xxsubinterpreters", "interpreters"),
)
_INSIDES = frozenset(
    {"__subclasses__", "__globals__", "__builtins__", "__code__", "__closure__", "__loader__", "__getattribute__"}
    | {"f_globals", "f_locals", "f_back", "f_builtins", "gi_frame", "cr_frame", "tb_frame", "__mro__", "__reduce_ex__"}
)
_SENSITIVE = frozenset(
    {"os", "sys", "builtins", "time", "socket", "subprocess", "ctypes", "importlib", "shutil", "signal", "posix", "gc"}
)
_ACCESS = frozenset({"builtins.getattr", "builtins.setattr", "builtins.hasattr", "builtins.delattr"})
_PICKLES = (*("pickle", "_pickle", "dill", "cloudpickle", "shelve", "jsonpickle", "joblib.load", "pandas.read_pickle"),)
_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", re.MULTILINE)


def _dynamic(tree: SourceTree) -> Iterator[Spot]:
    for module in tree.modules:
        if module.folder.budget.exhausted:
            yield Spot(module.path, 0, "expressions too long or too deep to be read")
        for reference in module.references:
            if covered(reference.name, _MAKERS):
                yield Spot(module.path, module.line(reference.node), f"{reference.name} makes or reaches hidden code")
            elif reference.name in _SENSITIVE and _is_value(module, reference):
                yield Spot(
                    module.path, module.line(reference.node), f"the module {reference.name} is handed on as a value"
                )
            elif reference.name.endswith(".*") and reference.name[:-2] in _SENSITIVE:
                yield Spot(module.path, module.line(reference.node), f"everything of {reference.name[:-2]} is imported")
        for node in module.nodes:
            if isinstance(node, ast.Attribute) and node.attr in _INSIDES:
                yield Spot(module.path, node.lineno, f".{node.attr} leads behind the code")
        for name, call in module.calls:
            yield from _hidden_name(module, name, call)
        for literal in module.literals:
            if literal.text in _INSIDES:
                yield Spot(module.path, module.line(literal.node), f"{literal.text!r} leads behind the code")


def _is_value(module: Module, reference: Reference) -> bool:
    """Whether a module stands anywhere but before a dot, in an import, or in an assignment that is followed.

    Its dictionary, too, may only be asked for names that are plain to read.
    """
    names, node = module.names, reference.node
    parent = module.parents.get(node)
    if isinstance(node, ast.Import | ast.ImportFrom) or not isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
        return False
    if is_dictionary(node, names):
        return not isinstance(parent, ast.Subscript) or module.folder.text(parent.slice) is None
    match parent:
        case ast.Attribute() | ast.Assign() | ast.AnnAssign() | ast.NamedExpr() | ast.Expr():
            return False
        case ast.Call(func=func, args=[first, second, *_]) if first is node and names.resolve(func) & _ACCESS:
            return module.folder.text(second) is None
        case ast.Call(func=func, args=[first]) if first is node:
            found = names.resolve(func)
            return "builtins.vars" not in found and not any(n.startswith("operator.attrgetter:") for n in found)
        case ast.Call(func=func):
            return func is not node
    return True


def _hidden_name(module: Module, name: str, call: ast.Call) -> Iterator[Spot]:
    if name in ("builtins.__import__", "importlib.import_module", "importlib.__import__"):
        text = module.folder.text(call.args[0]) if call.args else None
        if text is None or "{}" in text or name != "importlib.import_module":
            yield Spot(
                module.path, call.lineno, f"{name.removeprefix('builtins.')} of a module whose name is not plain"
            )


def _pickles(tree: SourceTree) -> Iterator[Spot]:
    for module in tree.modules:
        for reference in module.references:
            if covered(reference.name, _PICKLES):
                yield Spot(module.path, module.line(reference.node), f"{reference.name} runs code out of data")
        for name, call in module.calls:
            for keyword in call.keywords:
                flag = keyword.arg == "allow_pickle", keyword.arg == "weights_only"
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if (flag[0] and value is not False) or (flag[1] and value is not True):
                    yield Spot(module.path, call.lineno, f"{name}({keyword.arg}=…) runs code out of data")


def _encodings(tree: SourceTree) -> Iterator[Spot]:
    for module in tree.modules:
        head = b"\n".join(tree.files[module.path].split(b"\n", 2)[:2])
        cookie = _COOKIE.search(head)
        if cookie and cookie[1].lower().replace(b"_", b"-") not in (b"utf-8", b"utf8", b"ascii", b"us-ascii"):
            yield Spot(
                module.path,
                1,
                f"the encoding {cookie[1].decode('ascii', 'replace')}: readers see other text than Python",
            )


RULES = (
    Rule(
        id="dynamic-code",
        why="Code that is made at run time, or reached by names made at run time, cannot be read beforehand.",
        look=_dynamic,
    ),
    Rule(id="pickle", why="Loading a pickle executes what stands in it.", look=_pickles),
    Rule(id="source-encoding", why="Python must read the same text as everybody else.", look=_encodings),
)
