"""A plausible performance model of a small LLM server, to tune policies before (and beside) a measured table.

Gains multiply, with strong epistasis: batching gives little until the forward pass is batched, which needs a KV cache;
latency recipes trade against throughput; three lossy recipes are rejected by the audit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
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
_BATCH = Knob(value=8, type="int", low=1, high=64, scale="log")
_CHUNK = Knob(value=64, type="int", low=16, high=256, scale="log")
_DRAFT = Knob(value=3, type="int", low=1, high=8)
_FLUSH = Knob(value=1, type="int", low=1, high=8)


def _recipe(name: str, components: str, **kwargs: tuple[str, ...]) -> Recipe:
    """`components`: those it writes; a trailing `!` replaces the component as a whole."""
    names = components.split()
    return Recipe(
        name=name,
        summary=name,
        components={n.rstrip("!"): 1 for n in names},
        replaces=tuple(n[:-1] for n in names if n.endswith("!")),
        files={f"{n.rstrip('!')}.py": "" for n in names},
        **{"provides": (name,), **kwargs},
    )


RECIPES = (
    _recipe("kv-cache", "kv_cache!", provides=("kv",)),
    _recipe("continuous-batching", "scheduler!", provides=("batching",)),
    _recipe("batched-forward", "model", needs=("kv",)),
    _recipe("fused-weights", "weights"),
    _recipe("prefix-caching", "prefix kv_cache", needs=("kv",)),
    _recipe("chunked-prefill", "chunking scheduler", needs=("batching",), conflicts=("prefill-priority",)),
    _recipe("prefill-priority", "scheduler", needs=("batching",), conflicts=("chunked-prefill",)),
    _recipe("ngram-speculation", "drafting sampler", needs=("kv",)),
    _recipe("flush-tuning", "flushing server"),
    _recipe("shortest-job-first", "scheduler", needs=("batching",)),
    _recipe("argmax-sampler", "sampler!"),
    _recipe("windowed-attention", "model"),
    _recipe("skip-layer", "model"),
    _recipe("int8-kv", "kv_cache", needs=("kv",)),
)
_KNOBS = {
    "continuous-batching": ("scheduler", "max_batch", _BATCH),
    "chunked-prefill": ("chunking", "chunk", _CHUNK),
    "ngram-speculation": ("drafting", "tokens", _DRAFT),
    "flush-tuning": ("flushing", "every", _FLUSH),
}
_LOSSY = frozenset({"windowed-attention", "skip-layer", "int8-kv"})
_GRID: Mapping[str, tuple[KnobValue, ...]] = {
    "scheduler.max_batch": (4, 8, 16, 32),
    "chunking.chunk": (32, 64, 128),
    "drafting.tokens": (2, 3, 5),
    "flushing.every": (1, 2),
}


def genome(recipes: Iterable[str], knobs: Mapping[str, KnobValue]) -> Genome:
    has = set(recipes)
    names = ["server", "engine", "scheduler", "kv_cache", "model", "sampler", "weights", "prefix", "chunking"]
    components = {n: Component(name=n, interface=1, implementation="seed") for n in [*names, "drafting", "flushing"]}
    for recipe in sorted(has):
        component, knob, default = _KNOBS.get(recipe, ("server", "", _FLUSH))
        own = {} if not knob else {knob: Knob(**{**_fields(default), "value": knobs.get(f"{component}.{knob}", default.value)})}
        old = components[component]
        provides = next((r.provides for r in RECIPES if r.name == recipe), ())
        components[component] = Component(
            name=component,
            interface=1,
            implementation="changed",
            provides=(*old.provides, *provides),
            knobs={**old.knobs, **own},
        )
    return Genome(components)


def _fields(knob: Knob) -> dict[str, object]:
    return {n: getattr(knob, n) for n in ("value", "type", "low", "high", "scale", "choices", "doc")}


def costs(recipes: frozenset[str], knobs: Mapping[str, KnobValue]) -> dict[str, float]:
    """True metric values of the model."""
    kv, many, wide = ("kv-cache" in recipes, "continuous-batching" in recipes, "batched-forward" in recipes)
    throughput, ttft, tpot = (125.0, 260.0, 7.5) if kv else (13.0, 900.0, 75.0)
    batch = float(knobs.get("scheduler.max_batch", 8)) if many else 1.0
    if many:
        speed = 0.35 + 0.65 * batch ** (0.75 if wide else 0.03)
        throughput, ttft = throughput * min(speed, 6.0), ttft * (0.55 if wide else 0.8) * (8 / batch) ** 0.15
        tpot *= 1.0 + 0.03 * batch ** (0.8 if wide else 0.9)
    elif wide:
        throughput, tpot = throughput * 0.97, tpot * 1.03
    factors = {
        "fused-weights": (1.15, 0.95, 0.87),
        "prefix-caching": (1.03, 0.72, 1.02),
        "prefill-priority": (0.97, 0.7, 1.15),
        "flush-tuning": (1.02, 1.0, 0.98),
        "shortest-job-first": (1.0, 0.93, 1.0),
        "argmax-sampler": (1.04, 0.99, 0.96),
    }
    if "chunked-prefill" in recipes:
        small = math.log2(float(knobs.get("chunking.chunk", 64)) / 64)
        factors["chunked-prefill"] = (0.98, 1.2 * 0.93**small, 0.8 * 1.08**small)
    if "ngram-speculation" in recipes:
        drafts = float(knobs.get("drafting.tokens", 3))
        factors["ngram-speculation"] = (0.88 if batch < 4 else 1 - 0.07 * drafts, 1.03, 1 - 0.1 * min(drafts, 4))
    if "flush-tuning" in recipes:
        every = float(knobs.get("flushing.every", 1))
        factors["flush-tuning"] = (1.0 + 0.03 * math.log2(2 * every), 1.0 + 0.02 * every, 0.98)
    for name in recipes:
        a, b, c = factors.get(name, (1.0, 1.0, 1.0))
        throughput, ttft, tpot = throughput * a, ttft * b, tpot * c
    return {"output_throughput": throughput, "median_ttft_ms": ttft, "median_tpot_ms": tpot}


def valid_sets() -> Iterator[frozenset[str]]:
    """Every reachable set of recipes without the lossy ones, in order of size of the search."""
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
        declared = [f"{c}.{k}" for r, (c, k, _) in _KNOBS.items() if r in recipes]
        for values in product(*(_GRID[name] for name in declared)):
            knobs = dict(zip(declared, values, strict=True))
            samples = {name: (value,) for name, value in costs(recipes, knobs).items()}
            rows.append(Row(recipes=recipes, knobs=settings(knobs), entry=Entry(samples=samples), genome=None))
    defaults = {f"{component}.{name}": knob.value for component, name, knob in _KNOBS.values()}
    return Table(
        objectives=OBJECTIVES, recipes=RECIPES, rows=tuple(rows), defaults=defaults, lossy=_LOSSY,
        make_genome=genome, exact=True
    )
