"""Decides what a child is made of, in terms of its ancestors' proposals: the key by which a result is known beforehand.

A pedigree is the set of recipes in a tree, the knobs set since, and the free edits (agent, repair) of its lineage. Two
children with equal pedigrees are the same tree, so a policy can tell without git that a proposal repeats another, and
which files two lineages both changed, so that a three-way merge of them would conflict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from population.candidate import Operator, Proposal
from population.genome import KnobValue
from population.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Pedigree:
    """What a tree is made of, relative to the seed. Hashable."""

    recipes: frozenset[str] = frozenset()
    settings: frozenset[tuple[str, KnobValue]] = frozenset()
    """`component.knob` and its value, for every knob that a proposal has set and no later recipe replaced."""
    edits: frozenset[int] = frozenset()
    """Numbers of the lineage's children that were edited freely; every free edit is a tree of its own."""

    def __or__(self, other: Pedigree) -> Pedigree:
        return Pedigree(self.recipes | other.recipes, self.settings | other.settings, self.edits | other.edits)


@dataclass(frozen=True, slots=True)
class Descent:
    """The rules by which pedigrees descend, for the recipes of one run."""

    recipes: Mapping[str, Recipe]
    _components: Mapping[str, frozenset[str]] = field(init=False, repr=False, compare=False)
    """Recipe → components whose files it writes; asked for many times per proposal."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_components", {name: _written(recipe) for name, recipe in self.recipes.items()})

    def child(self, proposal: Proposal, parents: Mapping[str, Pedigree]) -> Pedigree | None:
        """The pedigree of the child that `proposal` makes; None when a parent is unknown."""
        known = [parents[p] for p in proposal.parents if p in parents]
        if len(known) < len(proposal.parents):
            return None
        base = known[0] if known else Pedigree()
        match proposal.operator:
            case Operator.SEED:
                return Pedigree()
            case Operator.MERGE:
                return known[0] | known[1]
            case Operator.TUNE:
                return Pedigree(base.recipes, _override(base.settings, proposal.knobs), base.edits)
            case Operator.RECIPE if proposal.recipe is not None:
                return self.with_recipe(base, proposal.recipe, proposal.knobs)
            case _:
                return Pedigree(base.recipes, base.settings, base.edits | {proposal.number})

    def with_recipe(self, base: Pedigree, name: str, knobs: Mapping[str, KnobValue]) -> Pedigree:
        """`base` after the recipe: what the recipe overwrites as a whole is no longer part of the tree."""
        recipe = self.recipes.get(name)
        if recipe is None:
            return Pedigree(base.recipes | {name}, _override(base.settings, knobs), base.edits)
        replaced = frozenset(recipe.replaces)
        kept = frozenset(old for old in base.recipes if not self._overwritten(old, replaced))
        settings = frozenset((knob, v) for knob, v in base.settings if knob.partition(".")[0] not in replaced)
        return Pedigree(kept | {name}, _override(settings, knobs), base.edits)

    def _overwritten(self, name: str, replaced: frozenset[str]) -> bool:
        touched = self.components_of(name)
        return bool(touched) and touched <= replaced

    def components_of(self, name: str) -> frozenset[str]:
        """Components whose files the recipe writes."""
        return self._components.get(name, frozenset())

    def conflict(self, one: Pedigree, two: Pedigree) -> bool:
        """Whether a three-way merge would probably conflict: both sides changed a component that one side replaced.

        Edits of the same file by both sides may merge cleanly, so they alone are no predicted conflict.
        """
        values = dict(one.settings)
        if any(values.get(knob, value) != value for knob, value in two.settings):
            return True
        if any(
            not self._compatible(name, other.recipes)
            for other, mine in ((one, two), (two, one))
            for name in mine.recipes - other.recipes
        ):
            return True
        whole = self._replaced(one.recipes - two.recipes), self._replaced(two.recipes - one.recipes)
        return bool(whole[0] & self._changed(two, one) or whole[1] & self._changed(one, two))

    def overlap(self, one: Pedigree, two: Pedigree) -> bool:
        """Whether both sides changed a common component, so that a clean merge is uncertain and may be wrong."""
        return bool(self._changed(one, two) & self._changed(two, one))

    def _compatible(self, name: str, others: frozenset[str]) -> bool:
        recipe = self.recipes.get(name)
        provided = {cap for other in others if other in self.recipes for cap in self.recipes[other].provides}
        return recipe is None or provided.isdisjoint(recipe.conflicts)

    def _replaced(self, names: frozenset[str]) -> frozenset[str]:
        return frozenset(c for name in names if name in self.recipes for c in self.recipes[name].replaces)

    def _changed(self, mine: Pedigree, other: Pedigree) -> frozenset[str]:
        by_recipe = (self.components_of(name) for name in mine.recipes - other.recipes)
        by_knob = {knob.partition(".")[0] for knob, _ in mine.settings - other.settings}
        return frozenset().union(*by_recipe, by_knob)


def _written(recipe: Recipe) -> frozenset[str]:
    paths = [*recipe.files, *(edit.path for edit in recipe.edits)]
    return frozenset(recipe.replaces) | {PurePosixPath(path).stem for path in paths}


def _override(
    settings: frozenset[tuple[str, KnobValue]], knobs: Mapping[str, KnobValue]
) -> frozenset[tuple[str, KnobValue]]:
    return frozenset(item for item in settings if item[0] not in knobs) | frozenset(knobs.items())
