"""Decides what an inspection can say: a rule that was broken, and where."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluators.inspection.tree import SourceTree


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """One broken rule. Every finding rejects; whoever judges later may add findings, and never takes one away."""

    path: str
    line: int
    """From 1; 0 speaks of the whole file."""
    rule: str
    what: str
    """What stands there, in words."""

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.what} [{self.rule}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that no candidate may do, unless its target allows it by the rule's id."""

    id: str
    why: str
    """One sentence."""
    look: Callable[[SourceTree], Iterator[Spot]]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a rule was broken; the inspector adds which rule."""

    path: str
    line: int
    what: str


def members(module: str, names: str) -> tuple[str, ...]:
    """Canonical names of a module's members, given with spaces between them."""
    return tuple(f"{module}.{name}" for name in names.split())


def covered(name: str, library: Collection[str]) -> bool:
    """Whether a canonical name is one of these, or a part of one."""
    return any(name == entry or name.startswith((f"{entry}.", f"{entry}()")) for entry in library)
