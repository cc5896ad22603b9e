"""Decides what a recipe is and where it applies; `vibeserve/mutators.py` carries it out. Format: docs/recipes.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from population.genome import Genome


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The executable part of a skill: what it needs, what it conflicts with, which files it writes."""

    name: str
    """The skill's folder name."""
    summary: str
    components: Mapping[str, int]
    """Components it writes or relies on → interface version it was written for; all must match the tree."""
    needs: tuple[str, ...] = ()
    """Capabilities that must be provided by the tree."""
    conflicts: tuple[str, ...] = ()
    """Capabilities that must not be provided by the tree."""
    provides: tuple[str, ...] = ()
    """Capabilities of the tree afterwards; if the tree has them all already, the recipe is pointless."""
    replaces: tuple[str, ...] = ()
    """Components whose implementation it replaces as a whole."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path in the tree → full new text."""
    edits: tuple[Edit, ...] = ()
    expected: Mapping[str, float] = field(default_factory=dict)
    """Objective → how many times better its author expects a tree to be with it (> 0; below 1: worse). A search begins
    with that belief and measures; an objective that is not named is expected to stay."""

    def applies(self, genome: Genome) -> bool:
        """Whether the recipe can sensibly be proposed for a tree with this genome."""
        versions = {c.name: c.interface for c in genome.components.values()}
        has = genome.capabilities
        return (
            all(versions.get(name) == version for name, version in self.components.items())
            and has.issuperset(self.needs)
            and has.isdisjoint(self.conflicts)
            and not (self.provides and has.issuperset(self.provides))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Replace `find`, which must occur exactly once in `path`, by `replace`."""

    path: str
    find: str
    replace: str
