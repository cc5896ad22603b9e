"""Decides which metrics can be an axis, what a candidate's value of one is, and in which unit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from population.archive import Archive, noise_factor
from population.errors import UsageError
from population.evaluation import Evaluation, Scored
from population.objectives import Direction, objective_samples
from population.replay import State
from population.statistics import Estimate, estimate
from vibeserve.follower import Followed

_RATES = {
    "output_throughput": "tok/s",
    "total_token_throughput": "tok/s",
    "request_throughput": "req/s",
    "request_goodput": "req/s",
    "max_output_tokens_per_s": "tok/s",
    "mean_output_tokens_per_s": "tok/s",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One metric as an axis. `higher` None: neither end is known to be better."""

    name: str
    unit: str
    higher: bool | None
    objective: bool


def axes(run: Followed) -> tuple[Axis, ...]:
    """The objectives in their order, then every other metric that was measured, by name."""

    def compute() -> tuple[Axis, ...]:
        archive = run.state.archive
        goals = tuple(
            Axis(name=o.name, unit=o.unit or unit_of(o.name), higher=o.direction is Direction.MAX, objective=True)
            for o in archive.objectives
        )
        taken = {axis.name for axis in goals}
        names = {name for candidate in archive.scored[:50] for name in _measured(archive.evaluations(candidate))}
        others = (
            Axis(name=name, unit=unit_of(name), higher=_higher(name), objective=False) for name in sorted(names - taken)
        )
        return (*goals, *others)

    return run.kept("axes", compute)


def axis_named(run: Followed, name: str) -> Axis:
    """Raises:
    UsageError: nothing of this name was measured.
    """
    for axis in axes(run):
        if axis.name == name:
            return axis
    raise UsageError(f"no metric '{name}' was measured in {run.name}; there are {', '.join(a.name for a in axes(run))}")


def values(run: Followed, axis: Axis) -> Mapping[str, Estimate]:
    """Scored candidate → its estimate; those without the metric are left out."""

    def compute() -> dict[str, Estimate]:
        archive = run.state.archive
        if axis.objective:
            return {name: archive.estimates(name)[axis.name] for name in archive.scored}
        found = ((name, _pooled(archive, archive.evaluations(name), axis)) for name in archive.scored)
        return {name: value for name, value in found if value is not None}

    return run.kept(("values", axis.name), compute)


def finals(state: State, axis: Axis) -> dict[str, Estimate]:
    """Subject of a final measurement (a candidate or a baseline) → its estimate on the held-out trace."""
    by_subject: dict[str, list[Evaluation]] = {}
    for (subject, _), event in sorted(state.finals.items()):
        by_subject.setdefault(subject, []).append(event.evaluation)
    found = ((subject, _pooled(state.archive, tuple(e), axis)) for subject, e in by_subject.items())
    return {subject: value for subject, value in found if value is not None}


def _pooled(archive: Archive, evaluations: Sequence[Evaluation], axis: Axis) -> Estimate | None:
    scored = [e for e in evaluations if isinstance(e, Scored)]
    objective = next((o for o in archive.objectives if axis.objective and o.name == axis.name), None)
    if objective is not None:
        samples: Iterable[float] = (v for e in scored for v in objective_samples(objective, e.samples))
        noise = objective.relative_noise
    else:
        samples = (v for e in scored for v in e.samples.get(axis.name, ()))
        base = axis.name.partition("@")[0]
        declared = {o.name: o.relative_noise for o in archive.objectives}
        noise = declared.get(base, max(declared.values()))
    pooled = [v for v in samples if v >= 0]
    return estimate(pooled, noise, noise_factor(scored)) if pooled else None


def point(value: Estimate) -> list[float]:
    """`[value, low, high, n]`."""
    return [_short(value.value), _short(value.low), _short(value.high), value.n]


def unit_of(name: str) -> str:
    """What a metric's name says about its unit; empty for a count or a share."""
    base = name.partition("@")[0]
    if base in _RATES:
        return _RATES[base]
    if "throughput" in base:
        return "tok/s"
    return "ms" if base.endswith("_ms") else "s" if base.endswith("_s") or base == "duration" else ""


def axis_json(axis: Axis) -> dict[str, Any]:
    """What the page needs to label it."""
    return {"name": axis.name, "unit": axis.unit, "higher": axis.higher, "objective": axis.objective}


def _higher(name: str) -> bool | None:
    base = name.partition("@")[0]
    if base in _RATES or "throughput" in base:
        return True
    return False if base.endswith("_ms") else None


def _measured(evaluations: Sequence[Evaluation]) -> set[str]:
    return {name for e in evaluations if isinstance(e, Scored) for name in e.samples}


def _short(value: float) -> float:
    """Six significant digits: more than a picture or a table shows, in a third of the bytes."""
    return float(f"{value:.6g}") if math.isfinite(value) else value
