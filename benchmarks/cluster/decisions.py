"""Measures what one decision costs as the archive grows: propose, add, the front, the bar, re-measurement, twin lookup.

python -m benchmarks.cluster.decisions [--sizes 100 1000 10000 100000] [--repeats 3] [--world WORLD] [--out FOLDER]

Two worlds: `recipes` has tiny-llama's recipes and knobs as benchmarks/search/synthetic.py models them, `dials` a tree
of continuous knobs alone whose front is long. Archives are grown by random descent, with measurement noise, because
what is measured is the cost at a size and not the search. CPU milliseconds of this process; every repeat is another
archive object with other children, and within a repeat all sizes are of one archive as it grows. Writes `decisions.md`
and, with --plot, `decisions.png` beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.search.synthetic import OBJECTIVES, RECIPES, genome, metrics
from population.archive import Archive
from population.candidate import Candidate, Operator, Proposal
from population.evaluation import Scored
from population.genome import Component, Genome, Knob, KnobValue
from population.recipe import Recipe
from search import racing
from search.evolve import EvolveConfig, EvolvePolicy

HERE = Path(__file__).parent
CALLS = 20
"""Children over which a cost is averaged, at every size and repeat."""
HEAD = """# Cost of one decision

Made by `python -m benchmarks.cluster.decisions --plot`: CPU ms, median [least, most] of {repeats} archives per world.
`per child` is propose + add + front + bar + twin, what every child costs; `doubt` (whom to measure once more) and
`remeasure` (take in what it gave) come when a slot is idle. From 1,000 to the largest size, log n grows {growth:.2f}
times."""
PENDING = 8
PLOTTED = {"per child": "C3", "propose": "C0", "add": "C1", "doubt": "C2", "remeasure": "C4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What a child of a world is made of."""

    recipes: frozenset[str]
    knobs: Mapping[str, KnobValue]


class Recipes:
    """Recipes, knobs and merges of a small LLM server; see benchmarks/search/synthetic.py."""

    recipes: Mapping[str, Recipe] = {recipe.name: recipe for recipe in RECIPES}

    def genome(self, tree: Tree) -> Genome:
        return genome(tree.recipes, tree.knobs)

    def values(self, tree: Tree) -> dict[str, float]:
        full = {name: knob.value for name, knob in self.genome(tree).knobs.items()}
        return metrics(tree.recipes, full)


class Dials:
    """Six continuous knobs that trade throughput for two latencies: the front is a surface."""

    recipes: Mapping[str, Recipe] = {}

    def genome(self, tree: Tree) -> Genome:
        names = [f"dial{i}" for i in range(6)]
        dial = Knob(value=0.5, type="float", low=0.0, high=1.0, trades=True)
        knobs = {name: replace(dial, value=tree.knobs.get(f"engine.{name}", 0.5)) for name in names}
        return Genome({"engine": Component(name="engine", interface=1, implementation="x", knobs=knobs)})

    def values(self, tree: Tree) -> dict[str, float]:
        first, second, *others = (float(knob.value) for knob in self.genome(tree).knobs.values())
        waste = 0.3 * sum((value - 0.7) ** 2 for value in others)
        shares = np.array([first, second * (1 - first), (1 - second) * (1 - first)])
        speed = np.exp(2 * np.sqrt(shares) - waste)
        return {
            "output_throughput": 100 * speed[0],
            "median_ttft_ms": 500 / speed[1],
            "median_tpot_ms": 50 / speed[2],
        }


WORLDS: Mapping[str, type[Recipes | Dials]] = {"recipes": Recipes, "dials": Dials}


class Run:
    """An archive of one world that grows by random descent."""

    def __init__(self, world: Recipes | Dials, seed: int) -> None:
        self.world, self.rng = world, np.random.default_rng(seed)
        self.archive = Archive(OBJECTIVES)
        self.policy = EvolvePolicy(EvolveConfig(), world.recipes)
        self.trees: list[Tree] = []
        self.finish(Proposal(number=0, operator=Operator.SEED), Tree(recipes=frozenset(), knobs={}))

    def finish(self, proposal: Proposal, tree: Tree) -> None:
        self.archive.add(self.child(proposal, tree))
        self.trees.append(tree)

    def child(self, proposal: Proposal, tree: Tree) -> Candidate:
        return Candidate(
            proposal=proposal,
            commit=f"{proposal.number:040x}",
            tree=f"{proposal.number:040x}",
            genome=self.world.genome(tree),
            evaluation=self.measured(tree),
            cost_s=5.0,
        )

    def measured(self, tree: Tree) -> Scored:
        noise = 1 + 0.03 * self.rng.standard_normal(3)
        values = self.world.values(tree).items()
        return Scored(samples={name: (float(v * n),) for (name, v), n in zip(values, noise, strict=True)})

    def grow(self, size: int) -> None:
        while len(self.trees) < size:
            self.finish(*self.descend())

    def descend(self) -> tuple[Proposal, Tree]:
        """A random recipe that applies, or a random value of every knob, of one of the last thousand."""
        number = len(self.trees)
        parent = int(self.rng.integers(max(0, number - 1000), number))
        old, has = self.trees[parent], self.archive.candidates[f"c{parent:06d}"].genome
        fitting = [n for n, r in self.world.recipes.items() if n not in old.recipes and r.applies(has)]
        if fitting and self.rng.random() < 0.5:
            name = fitting[int(self.rng.integers(len(fitting)))]
            proposal = Proposal(number=number, operator=Operator.RECIPE, parents=(f"c{parent:06d}",), recipe=name)
            return proposal, Tree(recipes=old.recipes | {name}, knobs=old.knobs)
        knobs = {name: self._value(knob) for name, knob in has.knobs.items()}
        proposal = Proposal(number=number, operator=Operator.TUNE, parents=(f"c{parent:06d}",), knobs=knobs)
        return proposal, Tree(recipes=old.recipes, knobs={**old.knobs, **knobs})

    def _value(self, knob: Knob) -> KnobValue:
        if knob.type == "choice":
            return knob.choices[int(self.rng.integers(len(knob.choices)))]
        assert knob.low is not None
        assert knob.high is not None
        value = self.rng.uniform(knob.low, knob.high)
        return round(value) if knob.type == "int" else float(value)


def decisions(run: Run) -> dict[str, float]:
    """Mean CPU ms per call of every decision at the run's size; the archive grows by `CALLS` children."""
    costs: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], object]) -> None:
        began = time.process_time()
        call()
        costs.setdefault(name, []).append(1000 * (time.process_time() - began))

    pending = [run.descend()[0] for _ in range(PENDING)]
    pending = [replace(p, number=len(run.trees) + 1000 + i) for i, p in enumerate(pending)]
    run.policy.propose(run.archive, pending, len(run.trees), np.random.default_rng(0))
    run.policy.remeasure(run.archive, (), np.random.default_rng(0))
    archive = run.archive
    for _ in range(CALLS):
        number = len(run.trees)
        rng = np.random.default_rng([1, number])
        proposal, tree = run.descend()
        child = run.child(proposal, tree)
        timed("add", lambda child=child: archive.add(child))
        run.trees.append(tree)
        timed("front", lambda: archive.front)
        timed("bar", lambda: racing.bar(archive))
        timed("twin", lambda: archive.trees.get("none"))
        timed("propose", lambda rng=rng, number=number: run.policy.propose(archive, pending, number + 1, rng))
        chosen: list[str | None] = []
        timed("doubt", lambda rng=rng, chosen=chosen: chosen.append(run.policy.remeasure(archive, (), rng)))
        if chosen[0] is not None:
            again = run.measured(run.trees[int(chosen[0][1:])])
            timed("remeasure", lambda c=chosen[0], again=again: (archive.remeasure(c, again), archive.front))
    found = {name: float(np.mean(values)) for name, values in costs.items()}
    child_ms = sum(found[name] for name in ("propose", "add", "front", "bar", "twin"))
    return {**found, "per child": child_ms, "front size": float(len(archive.front))}


def table(world: str, sizes: list[int], runs: list[dict[int, dict[str, float]]]) -> list[str]:
    """Median [least, most] over the repeats, the ratio of the largest to 1,000, and the slope from 1,000 on."""
    head = [f"| {world} | " + " | ".join(f"n = {size:,}" for size in sizes) + " | largest / 1,000 | log-log slope |"]
    lines = [*head, "|---" * (len(sizes) + 3) + "|"]
    large = [size for size in sizes if size >= 1000] or sizes
    names = ("propose", "add", "front", "bar", "twin", "per child", "doubt", "remeasure", "front size")
    for name in names:
        values = np.array([[run[size].get(name, np.nan) for size in sizes] for run in runs])
        picked = np.maximum(values[:, [sizes.index(size) for size in large]], 1e-4)
        ratios, slopes = picked[:, -1] / picked[:, 0], np.full(len(runs), np.nan)
        if len(large) > 1:
            slopes = np.polyfit(np.log(large), np.log(picked).T, 1)[0]
        cells = [spread(values[:, i]) for i in range(len(sizes))]
        lines.append(f"| {name} | " + " | ".join([*cells, spread(ratios), spread(slopes)]) + " |")
    return lines


def spread(values: np.ndarray) -> str:  # type: ignore[type-arg]
    return f"{np.median(values):.3g} [{values.min():.3g}, {values.max():.3g}]"


def plot(path: Path, sizes: list[int], found: Mapping[str, list[dict[int, dict[str, float]]]]) -> None:
    """CPU ms per decision over log n, every repeat a line, and what grows as log n does; needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(found), 3.4), layout="constrained")
    grid = figure.subplots(1, len(found), sharey=True, squeeze=False)
    for axis, (world, runs) in zip(grid[0], found.items(), strict=True):
        for name, colour in PLOTTED.items():
            for i, run in enumerate(runs):
                axis.loglog(sizes, [run[s][name] for s in sizes], colour, alpha=0.7, label=None if i else name)
        start = float(np.median([run[sizes[0]]["per child"] for run in runs]))
        grows = [start * np.log(size) / np.log(sizes[0]) for size in sizes]
        axis.loglog(sizes, grows, color="grey", linestyle=":", label="log n")
        axis.set(title=world, xlabel="candidates", ylabel="CPU ms")
        axis.legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--world", choices=sorted(WORLDS), action="append")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--plot", action="store_true", help="needs matplotlib, which VibeServe does not")
    options = parser.parse_args()
    found: dict[str, list[dict[int, dict[str, float]]]] = {}
    for world in options.world or WORLDS:
        for seed in range(options.repeats):
            run, costs = Run(WORLDS[world](), seed), {}
            for size in options.sizes:
                run.grow(size)
                costs[size] = decisions(run)
                cells = ", ".join(f"{k} {v:.3g}" for k, v in costs[size].items())
                print(f"{world} {seed} {size}: {cells}", flush=True)
            found.setdefault(world, []).append(costs)
    growth = np.log(options.sizes[-1]) / np.log(1000)
    lines = [f"{HEAD.format(repeats=options.repeats, growth=growth)}\n\n![CPU ms over candidates](decisions.png)"]
    for world, runs in found.items():
        lines += ["", *table(world, options.sizes, runs)]
    (options.out / "decisions.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    if options.plot:
        plot(options.out / "decisions.png", options.sizes, found)


if __name__ == "__main__":
    main()
