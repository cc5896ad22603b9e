"""Decides who takes part: our default policy, pymoo's NSGA-II in two forms, random search, OpenEvolve's database.

All are policies on the same archive, and see of every child only what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from benchmarks.cluster.quality.database import Database
from benchmarks.cluster.quality.islands import OpenEvolve
from benchmarks.cluster.quality.vectors import GenerationalNsga2, SteadyNsga2, Uniform
from population.objectives import FloatArray
from population.recipe import Recipe
from search.baselines import BarrierPolicy, Nsga2Config, Nsga2Policy, RandomPolicy
from search.evolve import EvolveConfig, EvolvePolicy
from search.moves import MoveConfig
from search.policy import Policy

Recipes = Mapping[str, Recipe]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a contestant is made for: one run."""

    recipes: Recipes
    slots: int
    seed: int
    best_M: FloatArray
    database: Database | None = None
    """OpenEvolve's; None where it is not installed."""

    def with_database(self, database: Database | None) -> Entry:
        return replace(self, database=database)


def _openevolve(entry: Entry) -> Policy:
    if entry.database is None:
        raise RuntimeError("OpenEvolve's database is not running; give its Python with --openevolve")
    return OpenEvolve(entry.recipes, entry.database, entry.seed, entry.best_M)


Make = Callable[[Entry], Policy]
OURS, OPENEVOLVE = "vibeserve", "openevolve"
STEADY, GENERATIONAL, RANDOM = "nsga2, steady state", "nsga2, generations", "random"
ON_PROBLEMS: Mapping[str, Make] = {
    OURS: lambda entry: EvolvePolicy(EvolveConfig(), entry.recipes),
    STEADY: lambda entry: SteadyNsga2(entry.seed),
    GENERATIONAL: lambda entry: GenerationalNsga2(entry.slots, entry.seed),
    OPENEVOLVE: _openevolve,
    RANDOM: lambda _: Uniform(),
}
ON_GRID: Mapping[str, Make] = {
    OURS: ON_PROBLEMS[OURS],
    STEADY: lambda entry: Nsga2Policy(Nsga2Config(), entry.recipes),
    GENERATIONAL: lambda entry: BarrierPolicy(
        Nsga2Policy(Nsga2Config(population_size=entry.slots), entry.recipes), entry.slots
    ),
    OPENEVOLVE: _openevolve,
    RANDOM: lambda entry: RandomPolicy(MoveConfig(), entry.recipes),
}
