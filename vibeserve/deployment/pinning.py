"""Decides which packages a folder of Python needs, at the versions of the environment that measured it."""

from __future__ import annotations

import ast
import platform
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """What to install."""

    python: str
    """`3.12.4`."""
    requirements: tuple[str, ...]
    """`name==version`, sorted, with everything that these need in turn."""
    unknown: tuple[str, ...]
    """Modules that are imported and that no installed package provides: optional, or missing here."""

    def text(self) -> str:
        """The content of a requirements.txt; complete, so it installs without dependency resolution."""
        lines = [f"# Python {self.python}; every package with its dependencies, as installed where this was written."]
        lines += [f"# Imported, and provided by no package here: {', '.join(self.unknown)}"] if self.unknown else []
        return "\n".join([*lines, *self.requirements]) + "\n"


def pins(folders: Iterable[Path]) -> Pins:
    """What the Python files below `folders` import, wherever in the file; computed names are missed."""
    folders = tuple(folders)
    wanted = {name for folder in folders for name in _imports(folder)} - set(sys.stdlib_module_names)
    wanted -= {path.stem for folder in folders for path in folder.rglob("*.py")}
    wanted -= {path.parent.name for folder in folders for path in folder.rglob("*.py")}
    providers = metadata.packages_distributions()
    direct = {name for module in wanted for name in providers.get(module, ())}
    return Pins(
        python=platform.python_version(),
        requirements=tuple(sorted(_pinned(_closure(direct)), key=str.lower)),
        unknown=tuple(sorted(module for module in wanted if module not in providers)),
    )


def _imports(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.py"):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue  # a data file with that ending; what is imported must parse
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield node.module.partition(".")[0]


def _closure(direct: Iterable[str]) -> set[str]:
    """The packages and, for this platform, everything that they require."""
    from packaging.requirements import Requirement

    found: dict[str, frozenset[str]] = {}
    open_ = [(name, frozenset[str]()) for name in direct]
    while open_:
        name, extras = open_.pop()
        key = name.lower().replace("_", "-").replace(".", "-")
        if key in found and extras <= found[key]:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # required under a marker that does not say so, e.g. an optional backend that is not installed
        found[key] = found.get(key, frozenset()) | extras
        for text in requires:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in ("", *found[key])):
                open_.append((needed.name, frozenset(needed.extras)))
    return set(found)


def _pinned(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        found = metadata.distribution(name)
        version, _, local = found.version.partition("+")  # no registry has local versions such as 2.11.0+cu130
        yield f"{found.metadata['Name']}=={version}" + (f"  # here {version}+{local}" if local else "")
