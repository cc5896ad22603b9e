"""Replays policies and their ablations on a table of evaluations and prints medians with quartiles as markdown.

python -m benchmarks.search.simulate [TABLE.json] [--seeds 20] [--first-seed 1000] [--only NAME]

The defaults were tuned on seeds 0-23 of the synthetic table; the seeds used here are others, so that a figure is not
the luck it was chosen for. The table is still the same: only a measured one says how well the defaults carry over.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.search.synthetic import synthetic_table
from benchmarks.search.table import Table, load_table
from benchmarks.search.world import Setting, simulate
from population.candidate import Operator
from population.objectives import FloatArray
from population.recipe import Recipe
from search.baselines import BarrierPolicy, Nsga2Config, Nsga2Policy, RandomPolicy
from search.evolve import EvolveConfig, EvolvePolicy
from search.indicators import hypervolume
from search.moves import MoveConfig, steps_only
from search.policy import Policy

Recipes = Mapping[str, Recipe]
Make = Callable[[Recipes], Policy]
GENERATION = 4
NO_MERGE = MoveConfig(operators=(Operator.RECIPE, Operator.TUNE))
NO_LEAPS = steps_only(MoveConfig())
NO_TUNE = MoveConfig(operators=(Operator.RECIPE, Operator.MERGE))
D = EvolveConfig()
ONE_SLOT = Setting()
FOUR_SLOTS = Setting(children=1000, slots=4, spread=0.6, horizon_s=45.0)


def evolve(config: EvolveConfig) -> Make:
    return lambda recipes: EvolvePolicy(config, recipes)


def ablations() -> dict[str, tuple[Make, Setting]]:
    """Name → policy and how it is driven."""
    one: dict[str, Make] = {
        "evolve (defaults)": evolve(D),
        "random": lambda recipes: RandomPolicy(MoveConfig(), recipes),
        "nsga2": lambda recipes: Nsga2Policy(Nsga2Config(), recipes),
        "no crossover": evolve(replace(D, moves=NO_MERGE)),
        "no tune": evolve(replace(D, moves=NO_TUNE)),
        f"bandit {'off' if D.use_bandit else 'on'}": evolve(replace(D, use_bandit=not D.use_bandit)),
        "no surrogate": evolve(replace(D, use_surrogate=False, use_bandit=False)),
        "no surrogate, bandit": evolve(replace(D, use_surrogate=False, use_bandit=True)),
        **{f"frontier_bias {b}": evolve(replace(D, frontier_bias=b)) for b in (0.3, 0.5, 0.9)},
        **{f"temperature {t}": evolve(replace(D, temperature=t)) for t in (0.3, 3.0)},
        **{f"parents_considered {k}": evolve(replace(D, parents_considered=k)) for k in (1, 2, 4)},
        **{f"fill_share {share}": evolve(replace(D, fill_share=share)) for share in (0.0, 0.3, 1.0)},
        "early_tune 1": evolve(replace(D, early_tune=1.0)),
        "gap_bias 0.3": evolve(replace(D, gap_bias=0.3)),
        "no unlock bonus": evolve(replace(D, unlock_bonus=0.0)),
        "no leaps": evolve(replace(D, moves=NO_LEAPS)),
        "reach 0": evolve(replace(D, reach=0.0)),
        "surrogate without fit": evolve(replace(D, surrogate=replace(D.surrogate, fit=False))),
        "surrogate without level": evolve(replace(D, surrogate=replace(D.surrogate, level=0.0))),
    }
    four: dict[str, Make] = {
        "4 slots, 45 s: steady state": evolve(D),
        "4 slots, 45 s: knob changes in flight not bounded": evolve(replace(D, tune_ahead=float("inf"))),
        "4 slots, 45 s: barrier": lambda recipes: BarrierPolicy(EvolvePolicy(D, recipes), GENERATION),
        "4 slots, 45 s: nsga2 with barrier": lambda recipes: BarrierPolicy(
            Nsga2Policy(Nsga2Config(), recipes), GENERATION
        ),
    }
    return {n: (m, ONE_SLOT) for n, m in one.items()} | {n: (m, FOUR_SLOTS) for n, m in four.items()}


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run: share of the grid's hypervolume after 10 children and at the end, best value of objective 0."""

    early: float
    late: float
    best: float
    front: int
    """Members of the noise-aware front that a user would be told at the end."""


def measure(table: Table, make: Make, setting: Setting, seed: int) -> Figures:
    """One run, with recipe names shuffled by the seed."""
    shuffled = _shuffled(table, seed)
    recipes = dict(sorted((r.name, r) for r in shuffled.recipes))
    replay = simulate(shuffled, make(recipes), setting, seed)
    reference = table.true_costs(table.seed)
    shares = [hypervolume(costs, reference) / _volume(table) for costs in replay.costs]
    best = table.objectives.objectives[0].value(float(replay.costs[-1][:, 0].min()))
    return Figures(shares[min(9, len(shares) - 1)], shares[-1], best, len(replay.archive.front))


@cache
def _shuffled(table: Table, seed: int) -> Table:
    return table.shuffled(np.random.default_rng([seed, 99]))


@cache
def _whole(table: Table) -> FloatArray:
    return np.array([table.true_costs(row) for row in table.rows])


@cache
def _volume(table: Table) -> float:
    return hypervolume(_whole(table), table.true_costs(table.seed))


def line(name: str, runs: list[Figures]) -> str:
    """One row of the markdown table: median [quartiles]."""
    cells = [
        f"{np.median(v):{f}} [{np.percentile(v, 25):{f}}, {np.percentile(v, 75):{f}}]"
        for v, f in (
            ([r.early for r in runs], ".2f"),
            ([r.late for r in runs], ".2f"),
            ([r.best for r in runs], ".0f"),
            ([r.front for r in runs], ".0f"),
        )
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", type=Path, help="recorded table; without it the synthetic one")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--only", default="", help="ablations whose name contains this")
    options = parser.parse_args()
    table = synthetic_table() if options.table is None else load_table(options.table)
    best = table.objectives.objectives[0].value(float(_whole(table)[:, 0].min()))
    print(f"{len(table.rows)} grid points, best {table.objectives.names[0]} {best:.0f}, {options.seeds} seeds\n")
    best_name = f"best {table.objectives.names[0]}"
    print(
        f"| policy | hypervolume share at 10 | at the end (25) | {best_name} | front members |\n|---|---|---|---|---|"
    )
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    started = time.monotonic()
    for name, (make, setting) in ablations().items():
        if options.only in name:
            print(line(name, [measure(table, make, setting, seed) for seed in seeds]), flush=True)
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
