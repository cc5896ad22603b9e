"""A plausible performance model of a small LLM server, to tune policies before (and beside) a measured table.

Gains multiply, with strong epistasis: batching gives little until the forward pass is batched, and both need a
KV cache; latency recipes trade against throughput; two lossy recipes are rejected by the audit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product

from benchmarks.search.table import Entry, Row, Table, settings
from population.genome import Component, Genome, Knob, KnobValue
from population.objectives import Direction, Objective, ObjectiveSet
from population.recipe import Recipe

OBJECTIVES = ObjectiveSet(
    (
        Objective(name="output_throughput", direction=Direction.MAX, unit="tok/s", relative_noise=0.03),
        Objective(name="median_ttft_ms", direction=Direction.MIN, unit="ms", relative_noise=0.08),
        Objective(name="median_tpot_ms", direction=Direction.MIN, unit="ms", relative_noise=0.05),
    )
)
Names = tuple[str, ...]
_COMPONENTS = ("server", "engine", "scheduler", "kv_cache", "model", "sampler")


def _recipe(
    name: str, components: str, *, needs: Names = (), conflicts: Names = (), provides: Names | None = None
) -> Recipe:
    """`components`: those it writes; a trailing `!` replaces the component as a whole."""
    names = components.split()
    return Recipe(
        name=name,
        summary=name,
        components={n.rstrip("!"): 1 for n in names},
        replaces=tuple(n[:-1] for n in names if n.endswith("!")),
        files={f"{n.rstrip('!')}.py": "" for n in names},
        needs=needs,
        conflicts=conflicts,
        provides=(name,) if provides is None else provides,
    )


RECIPES = (
    _recipe("kv-cache", "kv_cache!", provides=("kv-cache", "kv-slots")),
    _recipe("flush-tuning", "server"),
    _recipe("continuous-batching", "scheduler!", needs=("kv-cache",)),
    _recipe("batched-forward", "model!", needs=("kv-slots",), conflicts=("kv-window",)),
    _recipe("fused-weights", "model", needs=("batched-forward",)),
    _recipe("tiled-weights", "model", needs=("batched-forward",)),
    _recipe("prefix-caching", "kv_cache", needs=("kv-slots",), conflicts=("kv-window",), provides=("prefix-cache",)),
    _recipe("chunked-prefill", "scheduler", needs=("continuous-batching", "kv-cache")),
    _recipe("ngram-speculation", "sampler!", needs=("kv-cache",), provides=("speculation",)),
    _recipe("shortest-job-first", "scheduler", needs=("continuous-batching",)),
    _recipe(
        "kv-window", "kv_cache model", needs=("kv-slots",), conflicts=("batched-forward", "prefix-cache", "speculation")
    ),
    _recipe("depth-pruning", "model", needs=("batched-forward",)),
)
_LOSSY = frozenset({"kv-window", "depth-pruning"})
_KNOBS: Mapping[str, Mapping[str, Knob]] = {
    "continuous-batching": {"scheduler.max_running": Knob(value=16, type="int", low=1, high=48, scale="log")},
    "batched-forward": {"model.max_padded": Knob(value=8, type="int", low=4, high=64, scale="log")},
    "tiled-weights": {"model.tile_columns": Knob(value=64, type="choice", choices=(16, 64))},
    "chunked-prefill": {
        "scheduler.step_tokens": Knob(value=128, type="int", low=8, high=256, scale="log"),
        "scheduler.priority": Knob(value="mixed", type="choice", choices=("mixed", "prefill-first", "decode-first")),
    },
    "ngram-speculation": {"sampler.draft_tokens": Knob(value=3, type="int", low=1, high=7)},
    "flush-tuning": {"server.busy_streams": Knob(value=8, type="int", low=1, high=48, scale="log")},
}
_GRID: Mapping[str, tuple[KnobValue, ...]] = {
    "scheduler.max_running": (4, 16, 32),
    "model.max_padded": (8, 32),
    "model.tile_columns": (16, 64),
    "scheduler.step_tokens": (32, 128),
    "scheduler.priority": ("mixed", "prefill-first", "decode-first"),
    "sampler.draft_tokens": (1, 3),
    "server.busy_streams": (8, 24),
}


def genome(recipes: Iterable[str], knobs: Mapping[str, KnobValue]) -> Genome:
    """What the tree with these recipes and knob settings declares."""
    has = frozenset(recipes)
    declared = {name: knob for recipe in sorted(has & _KNOBS.keys()) for name, knob in _KNOBS[recipe].items()}
    values = {name: replace(knob, value=knobs.get(name, knob.value)) for name, knob in declared.items()}
    components = {}
    for name in _COMPONENTS:
        own = [r for r in RECIPES if r.name in has and (*r.replaces, *r.components)[0] == name]
        components[name] = Component(
            name=name,
            interface=1,
            implementation="-".join(r.name for r in own) or "seed",
            provides=tuple(cap for r in own for cap in r.provides),
            knobs={k.partition(".")[2]: knob for k, knob in values.items() if k.partition(".")[0] == name},
        )
    return Genome(components)


def metrics(recipes: frozenset[str], knobs: Mapping[str, KnobValue]) -> dict[str, float]:
    """True metric values of the model; `knobs` holds every declared knob."""
    throughput, ttft, tpot = (125.0, 260.0, 7.5) if "kv-cache" in recipes else (13.0, 900.0, 75.0)
    many, wide = "continuous-batching" in recipes, "batched-forward" in recipes
    running = float(knobs["scheduler.max_running"]) if many else 1.0
    if many:
        speed = min(0.35 + 0.65 * running ** (0.65 if wide else 0.03), 4.8)
        throughput, ttft = throughput * speed, ttft * (0.55 if wide else 0.8) * (16 / running) ** 0.15
        tpot *= 1.0 + 0.02 * running ** (0.8 if wide else 0.9)
    elif wide:
        throughput, tpot = throughput * 0.97, tpot * 1.03
    for recipe in sorted(recipes):
        a, b, c = _factors(recipe, knobs, running)
        throughput, ttft, tpot = throughput * a, ttft * b, tpot * c
    return {"output_throughput": throughput, "median_ttft_ms": ttft, "median_tpot_ms": tpot}


def _factors(recipe: str, knobs: Mapping[str, KnobValue], running: float) -> tuple[float, float, float]:
    match recipe:
        case "fused-weights":
            return 1.12, 0.95, 0.9
        case "tiled-weights":
            columns = knobs["model.tile_columns"]
            return {16: 1.08, 32: 1.12, 64: 1.15}[int(columns)], 0.95, {16: 0.85, 32: 0.88, 64: 0.93}[int(columns)]
        case "batched-forward":
            return (1.0, 1.0, 1.0) if knobs["model.max_padded"] == 8 else (0.97, 0.92, 1.03)
        case "prefix-caching":
            return 1.05, 0.72, 1.02
        case "shortest-job-first":
            return 1.0, 0.93, 1.0
        case "flush-tuning":
            return (1.06, 1.0, 0.98) if knobs["server.busy_streams"] == 8 else (1.03, 0.98, 0.97)
        case "chunked-prefill":
            small = math.log2(float(knobs["scheduler.step_tokens"]) / 64)
            first = {"mixed": (1.0, 1.0), "prefill-first": (0.7, 1.2), "decode-first": (1.4, 0.9)}
            late, slow = first[str(knobs["scheduler.priority"])]
            return 0.98, late * 1.15 * 0.93**small, slow * 0.82 * 1.08**small
        case "ngram-speculation":
            drafts = float(knobs["sampler.draft_tokens"])
            return (0.95 if running < 6 else 1 - 0.06 * drafts), 1.03, 1 - 0.1 * min(drafts, 4)
    return 1.0, 1.0, 1.0


def valid_sets() -> Iterator[frozenset[str]]:
    """Every reachable set of recipes without the lossy ones."""
    provides = {r.name: frozenset(r.provides) for r in RECIPES}
    sound = [r for r in RECIPES if r.name not in _LOSSY]
    for bits in product((False, True), repeat=len(sound)):
        chosen = [r for r, bit in zip(sound, bits, strict=True) if bit]
        caps = frozenset().union(*(provides[r.name] for r in chosen))
        if all(caps.issuperset(r.needs) and caps.isdisjoint(r.conflicts) for r in chosen):
            yield frozenset(r.name for r in chosen)


def synthetic_table() -> Table:
    """The whole space, with the exact values of the model; noise is drawn at every look-up."""
    rows = []
    for recipes in valid_sets():
        declared = [name for recipe in sorted(recipes & _KNOBS.keys()) for name in _KNOBS[recipe]]
        for values in product(*(_GRID[name] for name in declared)):
            knobs = dict(zip(declared, values, strict=True))
            samples = {name: (value,) for name, value in metrics(recipes, knobs).items()}
            rows.append(Row(recipes=recipes, knobs=settings(knobs), entry=Entry(samples=samples), genome=None))
    return Table(
        objectives=OBJECTIVES,
        recipes=RECIPES,
        rows=tuple(rows),
        defaults={name: knob.value for knobs in _KNOBS.values() for name, knob in knobs.items()},
        lossy=_LOSSY,
        make_genome=genome,
        exact=True,
    )
