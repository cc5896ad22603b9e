"""Runs whose fronts are known, for comparisons: fabricated, with noisy repeats, a fingerprint and hardware."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from population.candidate import Operator
from population.evaluation import Scored
from population.events import FinalMeasured, Stopped
from population.objectives import Objective
from tests.vibeserve.fabricated import OBJECTIVES, FabricatedRun
from vibeserve import __version__

FINGERPRINT = {
    **{part: part[0] * 64 for part in ("objectives", "settings", "reference", "checker", "seed")},
    "skills": "5" * 64,
    "vibeserve": __version__,
    "evaluation.trace_seed": "1",
}
HARDWARE = "2 × AMD EPYC"
TARGET = """[target]
name = "toy"
[server]
command = ["{python}", "server.py"]
[[load]]
name = "high"
kind = "closed"
concurrency = 6
window_s = 1.0
[[load]]
name = "low"
kind = "open"
rate_per_s = 20
window_s = 1.0
"""
SEED_POINT = (100.0, 50.0)
LOW_FRONT = ((300.0, 45.0), (200.0, 20.0))
"""Throughput and TTFT of the members."""
HIGH_FRONT = ((600.0, 30.0), (400.0, 10.0))
"""Better than `LOW_FRONT` by a factor of two throughout."""


def measured(throughput: float, ttft_ms: float, rng: np.random.Generator, repeats: int = 6) -> Scored:
    values = np.exp(np.log([[throughput], [ttft_ms], [3 * ttft_ms]]) + 0.02 * rng.standard_normal((3, repeats)))
    names = ("output_throughput@high", "median_ttft_ms@low", "p99_ttft_ms@low")
    return Scored(samples=dict(zip(names, map(tuple, values.tolist()), strict=True)), hardware=HARDWARE, tier="A")


def run_of(
    runs_dir: Path,
    name: str,
    front: Sequence[tuple[float, float]],
    *,
    seed: int = 7,
    options: str = "",
    fingerprint: dict[str, str] | None = None,
    target: str = TARGET,
    stopped: str | None = "budget: children",
    objectives: tuple[Objective, ...] = OBJECTIVES,
) -> Path:
    """A finished run with these members; `options` is the rest of run.toml."""
    known = {**FINGERPRINT, "rng seed": str(seed)} | (fingerprint or {})
    run = FabricatedRun.create(
        runs_dir, name, f"seed = {seed}\n{options}", seed=seed, fingerprint=known, objectives=objectives
    )
    rng = np.random.default_rng(seed)
    run.child(0, measured(*SEED_POINT, rng), Operator.SEED)
    for number, point in enumerate(front, start=1):
        run.child(number, measured(*point, rng), parents=("c000000",), recipe=f"recipe-{number}")
    run.append(FinalMeasured(subject="kv", evaluation=measured(150, 30, rng, repeats=1)))
    if front:
        run.append(FinalMeasured(subject="c000001", evaluation=measured(*front[0], rng, repeats=3)))
    if stopped is not None:
        run.append(Stopped(reason=stopped, elapsed_s=12.0))
    run.close()
    (run.folder / "target").mkdir()
    (run.folder / "target" / "target.toml").write_text(target, encoding="utf-8")
    return run.folder


def bench_file(path: Path, throughput: float, ttft_ms: float, **changes: object) -> Path:
    """What `vibeserve bench --workload TARGET --output FILE` writes, as far as it is read."""
    from vibeserve.benching.workload import load_json, read_workload

    settings = path.with_suffix(".toml")
    settings.write_text(TARGET, encoding="utf-8")
    table = {
        "backend": "vibeserve",
        "vibeserve": __version__,
        "hardware": "8 × AMD EPYC",
        "url": "http://127.0.0.1:9",
        "workload": [load_json(load) for load in read_workload(settings).loads],
        "samples": {"output_throughput@high": [throughput] * 3, "median_ttft_ms@low": [ttft_ms] * 3},
        "flags": [],
    }
    path.write_text(json.dumps({**table, **changes}), encoding="utf-8")
    return path
