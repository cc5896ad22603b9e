"""Measures a grid of the quickstart's recipes and knobs, point by point, as a table for `benchmarks.search`.

    python -m benchmarks.quickstart.grid OUT.json [--only TEXT] [--repeats N]

The table is what the search's hypervolume is compared with, and the ground on which policies are simulated. Points are
measured in a shuffled order, so that a drift of the machine does not look like an effect of a recipe. A file that
exists is continued: points that it holds are not measured again.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations, product
from pathlib import Path
from typing import Any

from evaluators.evaluator import EvaluationTask
from evaluators.pipeline import LocalEvaluator
from evaluators.target import Target, load_target
from population.candidate import Operator, Proposal
from population.evaluation import Evaluation, Rejected
from population.genome import Genome, KnobValue
from population.objectives import objective_samples
from population.recipe import Recipe
from population.repository import Repository
from vibeserve.layers import CHECKOUT
from vibeserve.lease import lease
from vibeserve.mutators import RecipeMutator, TuneMutator, read_genome
from vibeserve.recipes import load_recipes

Knobs = dict[str, KnobValue]
Point = tuple[tuple[str, ...], Knobs]

BASE = ("kv-cache", "batched-forward")
OPTIONS = ("continuous-batching", "tiled-weights", "fused-weights", "prefix-caching", "ngram-speculation")
FULL = (*BASE, *OPTIONS)
EXTRAS = ("chunked-prefill", "flush-tuning", "shortest-job-first")
LOSSY = ("depth-pruning", "kv-window")
TRACE_SEED = 20_261


def points() -> list[Point]:
    """The grid; a set of recipes comes in an order in which it can be applied."""
    return [*dict_points(_sets()), *dict_points(_knobs())]


def dict_points(found: Iterator[Point]) -> list[Point]:
    return list({json.dumps([sorted(r), k], sort_keys=True): (r, k) for r, k in found}.values())


def _sets() -> Iterator[Point]:
    """Every subset of what helps most, and everything else on top of the bottom and of the top."""
    yield (), {}
    yield ("flush-tuning",), {}
    for size in range(4):
        for chosen in combinations(("continuous-batching", "prefix-caching", "ngram-speculation"), size):
            yield ("kv-cache", *chosen), {}
    for size in range(len(OPTIONS) + 1):
        for chosen in combinations(OPTIONS, size):
            yield (*BASE, *chosen), {}
    for extra in ("flush-tuning", "kv-window"):
        yield ("kv-cache", extra), {}
    yield (*BASE, "depth-pruning"), {}
    for extra in EXTRAS:
        yield (*FULL, extra), {}
    yield (*FULL, *EXTRAS), {}
    yield (*FULL, "depth-pruning"), {}


def _knobs() -> Iterator[Point]:
    """Knobs that trade one objective for another, on the trees where they do."""
    quiet = tuple(recipe for recipe in FULL if recipe != "ngram-speculation")
    for running in (1, 2, 3, 4, 8, 32):
        yield quiet, {"scheduler.max_running": running}
        for drafts in (1, 3, 6):
            yield FULL, {"scheduler.max_running": running, "sampler.draft_tokens": drafts}
    for drafts, streams in product((1, 3, 6), (1, 4, 16)):
        yield FULL, {"sampler.draft_tokens": drafts, "sampler.max_streams": streams}
    for tile, padded in product((16, 32, 64), (8, 32)):
        yield FULL, {"model.tile_columns": tile, "model.max_padded": padded}
    for size in range(4):
        for chosen in combinations(("tiled-weights", "fused-weights", "prefix-caching", "ngram-speculation"), size):
            for running in (1, 2, 4):
                yield (*BASE, "continuous-batching", *chosen), {"scheduler.max_running": running}
    chunked = (*FULL, "chunked-prefill")
    for priority, tokens, running in product(("mixed", "prefill-first", "decode-first"), (16, 192), (4, 16)):
        yield (
            chunked,
            {"scheduler.priority": priority, "scheduler.step_tokens": tokens, "scheduler.max_running": running},
        )
    for prefills in (1, 2, 8):
        yield FULL, {"scheduler.prefills_per_step": prefills}
    for block, entries in product((4, 16), (4, 64)):
        yield FULL, {"kv_cache.block_tokens": block, "kv_cache.entries": entries}
    for streams, flush in product((1, 8), (2, 8)):
        yield (*FULL, "flush-tuning"), {"server.busy_streams": streams, "server.busy_flush_tokens": flush}


class Bench:
    """Builds and measures points on this machine."""

    def __init__(self, target: Target, recipes: Mapping[str, Recipe], repeats: int) -> None:
        self._target, self._recipes, self._repeats = target, recipes, repeats
        self._evaluator = LocalEvaluator()

    def build(self, point: Point, folder: Path) -> Genome:
        """The point's tree in `folder`."""
        assert self._target.seed is not None
        repository = Repository.create(folder.parent / "scratch.git", durable=False)
        seed = repository.commit_tree(self._target.seed, parents=(), message="seed", number=0)
        repository.export(seed.sha, folder)
        names, knobs = point
        for name in names:
            _ok(
                RecipeMutator(self._recipes).mutate(
                    folder, Proposal(number=1, operator=Operator.RECIPE, recipe=name), ""
                )
            )
        if knobs:
            _ok(TuneMutator().mutate(folder, Proposal(number=1, operator=Operator.TUNE, knobs=knobs), ""))
        return _ok(read_genome(folder))

    def measure(self, point: Point) -> dict[str, Any]:
        """One row of the table."""
        with lease(self._target.resources.cpus) as granted:
            workspace = granted.scratch / "workspace"
            workspace.mkdir()
            genome = self.build(point, workspace)
            task = EvaluationTask(
                candidate="grid",
                workspace=workspace,
                target=self._target.folder,
                trace_seed=TRACE_SEED,
                content_seed=secrets.randbits(48),
                repeats=self._repeats,
                first_party=True,
                output=granted.scratch / "output",
            )
            started = time.monotonic()
            evaluation = self._evaluator.evaluate(task, granted, lambda stage: None)
        return self._row(point, genome, evaluation, time.monotonic() - started)

    def _row(self, point: Point, genome: Genome, evaluation: Evaluation, cost_s: float) -> dict[str, Any]:
        names, knobs = point
        components = {name: asdict(component) for name, component in genome.components.items()}
        for component in components.values():
            del component["name"]
        row: dict[str, Any] = {
            "recipes": sorted(names),
            "knobs": knobs,
            "genome": components,
            "cost_s": round(cost_s, 2),
        }
        if isinstance(evaluation, Rejected):
            return {**row, "rejected": str(evaluation.stage), "reason": evaluation.reason}
        samples = {o.name: objective_samples(o, evaluation.samples) for o in self._target.objectives}
        figures = {name: [float(f"{v:.5g}") for v in values] for name, values in samples.items()}
        return {**row, "samples": figures, "flags": list(evaluation.flags)}

    def defaults(self) -> Knobs:
        """Every knob's value when its recipe is applied."""
        found: Knobs = {}
        for top in ((*FULL, *EXTRAS),):
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "tree").mkdir()
                genome = self.build((top, {}), Path(folder) / "tree")
            found |= {name: knob.value for name, knob in genome.knobs.items()}
        return found


def _ok(outcome: Any) -> Any:
    if isinstance(outcome, Rejected):
        raise SystemExit(f"error: {outcome.reason}")
    return outcome


def head(target: Target, recipes: Sequence[Recipe], defaults: Knobs) -> dict[str, Any]:
    """The table without its rows."""
    return {
        "format": 1,
        "objectives": [
            {"name": o.name, "direction": str(o.direction), "unit": o.unit, "relative_noise": o.relative_noise}
            for o in target.objectives
        ],
        "recipes": [
            {
                "name": r.name,
                "components": dict(r.components),
                "needs": list(r.needs),
                "conflicts": list(r.conflicts),
                "provides": list(r.provides),
                "replaces": list(r.replaces),
                "paths": sorted({*r.files, *(edit.path for edit in r.edits)}),
            }
            for r in recipes
        ],
        "defaults": defaults,
        "rows": [],
    }


def key(row: Mapping[str, Any]) -> str:
    return json.dumps([row["recipes"], row["knobs"]], sort_keys=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="", help="measure points whose description contains this")
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    target = load_target(CHECKOUT / "examples" / "tiny-llama")
    recipes = load_recipes(CHECKOUT / "skills")
    bench = Bench(target, recipes, arguments.repeats)
    table = head(target, list(recipes.values()), bench.defaults())
    if arguments.out.exists():
        table["rows"] = json.loads(arguments.out.read_text(encoding="utf-8"))["rows"]
    done = {key(row) for row in table["rows"]}
    todo = [
        p for p in points() if key({"recipes": sorted(p[0]), "knobs": p[1]}) not in done and arguments.only in str(p)
    ]
    random.Random(0).shuffle(todo)
    print(f"{len(points())} points, {len(todo)} to measure", flush=True)
    for number, point in enumerate(todo, 1):
        row = bench.measure(point)
        table["rows"].append(row)
        arguments.out.write_text(
            json.dumps(table, indent=None, separators=(",", ":")).replace('{"recipes"', '\n{"recipes"')
        )
        told = row.get("samples") or f"rejected at {row['rejected']}: {row['reason'][:80]}"
        print(
            f"{number}/{len(todo)} {row['cost_s']} s {'+'.join(point[0])} {point[1]}: {told} {row.get('flags')}",
            flush=True,
        )


if __name__ == "__main__":
    main()
