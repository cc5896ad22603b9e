"""Asks what the search would propose next in a recorded evolution, with and without what recipes are expected to gain.

    python benchmarks/llama-3.1-8b/choices.py [RUN] [--draws 10]

RUN: a folder with a ledger; default: results/2026-11-22c/standard, whose search did not draw continuous batching.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from population.archive import Archive
from population.ledger import read_events
from population.recipe import Recipe
from population.replay import State
from search.evolve import EvolveConfig, EvolvePolicy
from vibeserve.recipes import load_recipes

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]


def choices(archive: Archive, recipes: Mapping[str, Recipe], draws: int) -> str:
    """What the default policy proposes, by how often."""
    policy, counts = EvolvePolicy(EvolveConfig(), recipes), Counter[str]()
    for seed in range(draws):
        proposal = policy.propose(archive, (), len(archive.children), np.random.default_rng(seed))
        counts[(proposal.recipe or str(proposal.operator)) if proposal else "nothing"] += 1
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=HERE / "results" / "2026-11-22c" / "standard")
    parser.add_argument("--draws", type=int, default=10)
    arguments = parser.parse_args()
    events = list(read_events(arguments.run / "ledger"))
    all_of_them = load_recipes(CHECKOUT / "skills")
    told = {name: recipe for name, recipe in all_of_them.items() if name.startswith("gpu-")}
    silent = {name: replace(recipe, expected={}) for name, recipe in told.items()}
    print("| after children | with expectations | without |\n|---|---|---|")
    ends = [at for at, event in enumerate(events) if event.kind == "ended"]
    for at in ends[1::2]:
        archive = State.replay(events[: at + 1]).archive
        cells = [choices(archive, recipes, arguments.draws) for recipes in (told, silent)]
        print(f"| {len(archive.children) - 1} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
