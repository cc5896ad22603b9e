"""Decides what a program reads of a measurement: one load as `vllm bench serve` writes it, more than that by load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from evaluators.hardware import machine
from evaluators.load.result import result_json
from population.statistics import Estimate
from vibeserve import __version__
from vibeserve.benching.measuring import Measured
from vibeserve.benching.view import verdict
from vibeserve.benching.workload import load_json
from vibeserve.conditions import Verdict

_HERE = ("127.0.0.1", "localhost", "::1")
"""Hosts of servers that run on the client's hardware; of others it is not known."""


def bench_json(
    measured: Sequence[Measured], ratios: Mapping[str, Estimate], judged: Sequence[Verdict], seed: int
) -> dict[str, Any]:
    """The object of `vibeserve bench --json`: the first server, what the second one changes, what failed."""
    values = measured_json(measured[0], seed)
    if len(measured) > 1:
        plain = estimates_json(ratios)
        values["against"] = measured_json(measured[1], seed)
        values["gains"] = {key: {**plain[key], "verdict": verdict(ratio)} for key, ratio in ratios.items()}
    if judged:
        values["fail_if"] = [_failure_json(v) for v in judged]
    return values


def _failure_json(verdict: Verdict) -> dict[str, Any]:
    """What `--fail-if` asked about; `failed`: it holds."""
    named = {"condition": str(verdict.condition), "metric": verdict.key, "limit": verdict.condition.limit}
    return {**named, **asdict(verdict.found), "failed": verdict.certainty.holds}


def measured_json(measured: Measured, seed: int) -> dict[str, Any]:
    """One repeat of one load as `vllm bench serve` has it, flat; more than that by load. Always with `samples`."""
    head = {
        "backend": "vibeserve",
        "vibeserve": __version__,
        "hardware": machine() if urlsplit(measured.url).hostname in _HERE else None,
        "url": measured.url,
        "model_id": measured.model,
        "seed": seed,
        "workload": [load_json(result.load) for result in measured.repeats[0]],
    }
    samples = {key: list(values) for key, values in measured.samples.items()}
    if len(measured.repeats) == 1 and len(measured.repeats[0]) == 1:
        return {**head, **result_json(measured.repeats[0][0]), "samples": samples}
    loads = {
        result.load.name: [result_json(results[place]) for results in measured.repeats]
        for place, result in enumerate(measured.repeats[0])
    }
    return {
        **head,
        "repeats": len(measured.repeats),
        "metrics": estimates_json(measured.estimates),
        "samples": samples,
        "loads": loads,
        "flags": list(measured.flags),
    }


def estimates_json(found: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """Name → value, low, high, n."""
    return {key: {"value": e.value, "low": e.low, "high": e.high, "n": e.n} for key, e in found.items()}
