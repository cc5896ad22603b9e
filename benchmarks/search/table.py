"""Decides what a recorded table of evaluations is: each point of a grid of recipe sets and knobs, measured once.

    {"format": 1,
     "objectives": [{"name", "direction", "unit", "relative_noise"}],
     "recipes": [{"name", "components": {"scheduler": 1}, "needs", "conflicts", "provides", "replaces", "paths"}],
     "defaults": {"scheduler.max_batch": 8},   value of a knob when its recipe is applied
     "rows": [{"recipes": ["kv-cache", …] sorted, "knobs": {"scheduler.max_batch": 8},
               "genome": {"scheduler": {"interface", "implementation", "provides", "knobs": {"max_batch": {…}}}},
               "samples": {"output_throughput": [..]} or "rejected": "audit", "reason": "…",
               "cost_s": 6.1}]}

`samples` hold the objectives by name (means over loads already taken). A row without recipes and knobs is the seed.
A tree that was not recorded counts as its nearest recorded row (what is not on the grid has no effect); see `nearest`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from population.evaluation import Rejected, Scored, Stage
from population.genome import Component, Genome, Knob, KnobValue
from population.objectives import Direction, FloatArray, Objective, ObjectiveSet
from population.recipe import Recipe

Settings = frozenset[tuple[str, KnobValue]]
MISSING = 5.0
"""Distance of a tree to a row without one of its recipes, per log ratio that it changes; a knob off by e is 1 away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the grid point gave: samples per objective, or the stage that rejected it."""

    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    rejected: Stage | None = None
    reason: str = ""
    cost_s: float = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One grid point."""

    recipes: frozenset[str]
    knobs: Settings
    entry: Entry
    genome: Genome | None
    """None: the table makes it on demand."""


def settings(knobs: Mapping[str, KnobValue]) -> Settings:
    return frozenset(knobs.items())


@dataclass(frozen=True, eq=False)
class Table:
    """A whole grid."""

    objectives: ObjectiveSet
    recipes: tuple[Recipe, ...]
    rows: tuple[Row, ...]
    defaults: Mapping[str, KnobValue] = field(default_factory=dict)
    """Knob → value that its recipe brings."""
    lossy: frozenset[str] = frozenset()
    """Recipes that the audit rejects on every tree."""
    make_genome: Callable[[Iterable[str], Mapping[str, KnobValue]], Genome] | None = None
    exact: bool = False
    """Whether samples are true values, to which a look-up adds the declared noise."""

    @cached_property
    def by_recipes(self) -> dict[frozenset[str], list[Row]]:
        found: dict[frozenset[str], list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.recipes, []).append(row)
        return found

    @cached_property
    def seed(self) -> Row:
        return self.by_recipes[frozenset()][0]

    def nearest(self, recipes: frozenset[str], knobs: Mapping[str, KnobValue], but: Row | None = None) -> Row:
        """The row that stands for a tree: of its recorded subsets, the one that misses least in recipes and knobs.

        A recipe that is missing weighs by what it changes where it was recorded, so that a knob which was only recorded
        without a recipe of little effect still has one. `but`: a row that is not the answer, if there is another.
        """
        subsets = [recipes] if recipes in self.by_recipes else []
        subsets += [s for s in self.by_recipes if s < recipes and (not subsets or self._varied[s])]
        found = [row for s in subsets for row in self.by_recipes[s] if row is not but] or [but or self.seed]
        wanted = {**self.defaults, **knobs}
        return min(found, key=lambda row: self._distance(row, wanted) + self._missing(recipes - row.recipes))

    def _missing(self, recipes: frozenset[str]) -> float:
        return sum(MISSING * self._effects.get(recipe, 1.0) for recipe in recipes)

    @cached_property
    def _effects(self) -> dict[str, float]:
        """Recipe → mean change of a cost (log ratio) that it made on recorded trees, with knobs as they come."""
        costs = {row.recipes: self.true_costs(row) for row in self.rows if not row.knobs and row.entry.rejected is None}
        found: dict[str, list[float]] = {}
        for recipes, after_M in costs.items():
            for recipe in recipes:
                if (before_M := costs.get(recipes - {recipe})) is not None:
                    found.setdefault(recipe, []).append(float(np.abs(after_M - before_M).mean()))
        return {recipe: float(np.mean(changes)) for recipe, changes in found.items()}

    @cached_property
    def _varied(self) -> dict[frozenset[str], frozenset[str]]:
        """Recipes → the knobs that were varied on them."""
        return {s: frozenset(k for row in rows for k, _ in row.knobs) for s, rows in self.by_recipes.items()}

    def _distance(self, row: Row, wanted: Mapping[str, KnobValue]) -> float:
        """Over all knobs that the grid varies and the tree has; logarithmic for numbers."""
        has = {**self.defaults, **dict(row.knobs)}
        return sum(_apart(has[name], wanted[name]) for name in self._turned if name in wanted and name in has)

    @cached_property
    def _turned(self) -> list[str]:
        return sorted(frozenset().union(*self._varied.values()))

    def genome(self, row: Row) -> Genome:
        if row.genome is not None:
            return row.genome
        assert self.make_genome is not None
        return self.make_genome(row.recipes, dict(row.knobs))

    def evaluate(self, row: Row, recipes: frozenset[str], rng: np.random.Generator) -> Scored | Rejected:
        """One noisy evaluation with one repeat; the noise of a recorded sample is in it already, hence the half."""
        if recipes & self.lossy:
            return Rejected(stage=Stage.AUDIT, reason="lossy recipe")
        if row.entry.rejected is not None:
            return Rejected(stage=row.entry.rejected, reason=row.entry.reason)
        samples = {}
        for objective in self.objectives:
            recorded = row.entry.samples[objective.name]
            noise = objective.relative_noise if self.exact else objective.relative_noise / 2
            samples[objective.name] = (float(rng.choice(recorded) * np.exp(noise * rng.standard_normal())),)
        return Scored(samples=samples)

    def true_costs(self, row: Row) -> FloatArray:
        """Costs (M,) of the geometric means; inf for a rejected row."""
        if row.entry.rejected is not None:
            return np.full(len(self.objectives), np.inf)
        return np.array([np.mean([o.cost(v) for v in row.entry.samples[o.name]]) for o in self.objectives])

    def shuffled(self, rng: np.random.Generator) -> Table:
        """The same table with meaningless recipe names in random order, so that no hidden order does the searching."""
        order = rng.permutation(len(self.recipes))
        names = {recipe.name: f"r{order[i]:02d}" for i, recipe in enumerate(self.recipes)}
        back = {new: old for old, new in names.items()}
        make = self.make_genome
        return replace(
            self,
            recipes=tuple(replace(recipe, name=names[recipe.name]) for recipe in self.recipes),
            rows=tuple(replace(row, recipes=frozenset(names[r] for r in row.recipes)) for row in self.rows),
            lossy=frozenset(names[r] for r in self.lossy),
            make_genome=None if make is None else lambda recipes, knobs: make([back[r] for r in recipes], knobs),
        )


def _apart(mine: KnobValue, other: KnobValue) -> float:
    if isinstance(mine, str) or isinstance(other, str):
        return float(mine != other)
    return abs(math.log(max(mine, 1e-9)) - math.log(max(other, 1e-9)))


def load_table(path: Path) -> Table:
    """Read a recorded table.

    Raises:
        KeyError, ValueError: the file is not of format 1.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    if data["format"] != 1:
        raise ValueError(f"{path}: expected format 1, got {data['format']!r}")
    objectives = ObjectiveSet(
        tuple(Objective(**{**o, "direction": Direction(o["direction"])}) for o in data["objectives"])
    )
    rows = tuple(_row(row) for row in data["rows"])
    recipes = tuple(_recipe(r) for r in data["recipes"])
    return Table(objectives, recipes, rows, data.get("defaults", {}), lossy=_lossy(recipes, rows))


def _lossy(recipes: Iterable[Recipe], rows: Iterable[Row]) -> frozenset[str]:
    """Recipes that were rejected on every tree on which they were recorded, and so count as rejected on any."""
    passed = frozenset().union(*(row.recipes for row in rows if row.entry.rejected is None))
    return frozenset(recipe.name for recipe in recipes) - passed


def _recipe(data: Mapping[str, Any]) -> Recipe:
    lists = {key: tuple(data.get(key, ())) for key in ("needs", "conflicts", "provides", "replaces")}
    files = dict.fromkeys(data.get("paths", ()), "")
    return Recipe(name=data["name"], summary=data["name"], components=data["components"], files=files, **lists)


def _row(data: Mapping[str, Any]) -> Row:
    rejected = data.get("rejected")
    entry = Entry(
        samples={name: tuple(values) for name, values in data.get("samples", {}).items()},
        rejected=None if rejected is None else Stage(rejected),
        reason=data.get("reason", ""),
        cost_s=data["cost_s"],
    )
    genome = Genome({name: _component(name, c) for name, c in data["genome"].items()})
    return Row(recipes=frozenset(data["recipes"]), knobs=settings(data["knobs"]), entry=entry, genome=genome)


def _component(name: str, data: Mapping[str, Any]) -> Component:
    knobs = {k: Knob(**{**v, "choices": tuple(v.get("choices", ()))}) for k, v in data.get("knobs", {}).items()}
    return Component(
        name=name,
        interface=data["interface"],
        implementation=data["implementation"],
        provides=tuple(data.get("provides", ())),
        knobs=knobs,
    )
