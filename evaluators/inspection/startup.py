"""Decides whether a tree gets code run that nobody asked for: at start-up, on import, or inside library functions."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

from evaluators.inspection.finding import Rule, Spot, covered, members
from evaluators.inspection.tree import SourceTree

_STARTERS = frozenset({"sitecustomize", "usercustomize", "conftest"})
_HOOKS = (
    *members("sys", "meta_path path_hooks path_importer_cache settrace setprofile monitoring addaudithook"),
    *members("threading", "settrace setprofile settrace_all_threads setprofile_all_threads"),
    *members("importlib", "abc machinery util"),
    *("site", "zipimport", "pkgutil", "codecs.register"),
)
_PATCHABLE = frozenset(
    {"builtins", "os", "io", "json", "socket", "ssl", "select", "selectors", "asyncio", "threading", "hashlib", "zlib"}
    | {"importlib", "random", "secrets", "http", "inspect", "gc", "signal", "subprocess"}
)
_HARMLESS = re.compile(
    r"os\.environ\..*|threading\.excepthook|.*\(\).*"
    r"|http\.server\.\w+\.(protocol_version|server_version|sys_version|request_queue_size)"
)
_SYSTEM = ("sys.modules", "sys.path_hooks", "sys.meta_path", "sys.exit", "sys._getframe", "sys.implementation")
_VARIABLE = re.compile(
    r"(?:LD_(?:PRELOAD|AUDIT|LIBRARY_PATH)|DYLD_\w+|FAKETIME\w*|GCONV_PATH|LOCPATH"
    r"|PYTHON(?:PATH|HOME|STARTUP|INSPECT|BREAKPOINT|USERBASE|PLATLIBDIR|CASEOK|EXECUTABLE|PYCACHEPREFIX|WARNINGS))(?:=.*)?",
    re.DOTALL,
)


def _planted(tree: SourceTree) -> Iterator[Spot]:
    for path in tree.files:
        place = PurePosixPath(path)
        names = (place.stem if place.suffix == ".py" else "", *place.parts[:-1])
        if any(name in _STARTERS for name in names) or place.suffix == ".pth" or place.name == "pyvenv.cfg":
            yield Spot(path, 0, "Python runs or obeys this file by itself")
        elif any(part.endswith((".dist-info", ".egg-info", ".egg")) for part in place.parts):
            yield Spot(path, 0, "a planted distribution: its entry points are run by others")
        elif place.suffix == ".py" and place.parts[0].removesuffix(".py") in sys.stdlib_module_names:
            yield Spot(
                path, 0, f"takes the place of the standard module {place.parts[0].removesuffix('.py')}; rename it"
            )


def _hooks(tree: SourceTree) -> Iterator[Spot]:
    for module in tree.modules:
        for reference in module.references:
            if covered(reference.name, _HOOKS):
                yield Spot(
                    module.path, module.line(reference.node), f"{reference.name} changes how code is found or run"
                )
        for store in module.stores:
            if covered(store.name, ("sys.modules",)):
                yield Spot(module.path, module.line(store.node), "sys.modules is changed: an import may bring anything")


def _patches(tree: SourceTree) -> Iterator[Spot]:
    for module in tree.modules:
        for store in module.stores:
            system = covered(store.name, _SYSTEM) and not covered(store.name, ("sys.modules",))
            if (covered(store.name, _PATCHABLE) or system) and not _HARMLESS.fullmatch(store.name):
                yield Spot(module.path, module.line(store.node), f"{store.name} is replaced")


def _variables(tree: SourceTree) -> Iterator[Spot]:
    for module in tree.modules:
        for literal in module.literals:
            if _VARIABLE.fullmatch(literal.text):
                yield Spot(module.path, module.line(literal.node), f"{literal.text[:60]}: changes what programs load")


RULES = (
    Rule(
        id="planted-module",
        why="Files that Python runs by itself, or in place of a library, act outside of the server.",
        look=_planted,
    ),
    Rule(
        id="import-hook",
        why="Hooks of imports and tracing run code that no reader of the server sees.",
        look=_hooks,
    ),
    Rule(
        id="patched-library",
        why="A library function that is replaced no longer does what the code that calls it says.",
        look=_patches,
    ),
    Rule(
        id="environment-tampering",
        why="Variables of the loader and of Python make other programs run a candidate's code.",
        look=_variables,
    ),
)
