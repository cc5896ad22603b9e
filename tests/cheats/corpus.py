"""Decides what the corpus holds: cheats and honest twins, read from corpus/*.toml.

One file per class. A `[[cheat]]` says how the honest tree is changed and what must become of it; its `twin` is the same
technique done honestly, a `[[twin]]` of any file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from population.evaluation import Stage
from population.recipe import Edit

FOLDER = Path(__file__).parent / "corpus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an evaluation may end."""

    stages: tuple[Stage, ...] = ()
    """A rejection at one of these stages; empty: it must be scored."""
    says: str = ""
    """Regular expression that the rejection's reason or evidence contains."""
    at_least: Mapping[str, float] = field(default_factory=dict)
    """Of a scored evaluation: metric → the least value of its sample; an unrewarded trick keeps its latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Changes of the honest tree."""

    name: str
    edits: tuple[Edit, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """Path → the whole text of a file that is added or replaced."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Path → where a symbolic link of that name points."""
    allow: tuple[str, ...] = ()
    """Rules of the diff inspection that a target which wants such servers switches off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheat:
    """One way of getting a better score than the work deserves, or of harming somebody."""

    kind: str
    """The class: the name of its file."""
    tree: Tree
    twin: str
    inspection: str = ""
    """Regular expression in what diff inspection says; empty: it sees nothing wrong."""
    outcome: Outcome
    """With diff inspection switched off."""
    contained: bool = False
    """Only a sandbox stops it: without inspection it runs in tier A alone."""

    @property
    def name(self) -> str:
        return self.tree.name


def load_corpus() -> tuple[tuple[Cheat, ...], Mapping[str, Tree]]:
    """Every cheat in order of class and file, and every twin by name."""
    cheats: list[Cheat] = []
    twins: dict[str, Tree] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        assert set(data) <= {"cheat", "twin"}, f"{path}: expected [[cheat]] and [[twin]] only, got {sorted(data)}"
        cheats += [_cheat(path.stem, table) for table in data.get("cheat", [])]
        twins |= {table["name"]: _tree(table) for table in data.get("twin", [])}
    return tuple(cheats), twins


def _cheat(kind: str, table: dict[str, Any]) -> Cheat:
    known = {"name", "twin", "inspection", "stage", "says", "at_least", "contained", "edit", "files", "links"}
    assert set(table) <= known, f"{kind}/{table.get('name')}: unknown keys {sorted(set(table) - known)}"
    outcome = Outcome(
        stages=tuple(Stage(stage) for stage in table.get("stage", [])),
        says=table.get("says", ""),
        at_least=table.get("at_least", {}),
    )
    return Cheat(
        kind=kind,
        tree=_tree(table),
        twin=table["twin"],
        inspection=table.get("inspection", ""),
        outcome=outcome,
        contained=table.get("contained", False),
    )


def _tree(table: dict[str, Any]) -> Tree:
    """Texts in ''' quotes begin and end with a line break of their own, which is not part of what is replaced."""
    edits = tuple(
        Edit(path=edit["path"], find=_trim(edit["find"]), replace=_trim(edit["replace"]))
        for edit in table.get("edit", [])
    )
    return Tree(
        name=table["name"],
        edits=edits,
        files=table.get("files", {}),
        links=table.get("links", {}),
        allow=tuple(table.get("allow", [])),
    )


def _trim(text: str) -> str:
    return text[:-1] if text.endswith("\n") else text
