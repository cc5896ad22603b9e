"""Decides what may be claimed: a fresh paired (ABBA) measurement of one candidate against another on one machine.

The search selects permissively from few repeats, so its best numbers are partly luck. A claim is measured anew: pairs
run back to back on the same node, share their prompts and the held-out trace, and alternate in order, so that drift
cancels and luck of the search does not enter.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from population.archive import noise_factor
from population.errors import InfrastructureError, RunError
from population.evaluation import Rejected, Scored
from population.objectives import Direction, ObjectiveSet, objective_samples
from population.statistics import Estimate, estimate, paired_ratio
from vibeserve.executor import Evaluated, Executor, Fault, MeasureTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One side of a claim."""

    name: str
    commit: str
    bundle: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What was found. `gains`: objective → how many times better the candidate is, above 1 is better, with interval."""

    candidate: str
    against: str
    pairs: int
    gains: Mapping[str, Estimate]
    measured: Mapping[str, Mapping[str, Estimate]]
    """Subject → objective → value."""
    nodes: tuple[str, ...]
    flags: tuple[str, ...]
    """Caveats of the measurements, such as `noisy`."""


def measure_claim(
    sides: tuple[Subject, Subject],
    executor: Executor,
    objectives: ObjectiveSet,
    trace_seed: int,
    pairs: int,
    progress: Callable[[str], None],
) -> Claim:
    """Measure `sides` in pairs, one evaluation at a time.

    Raises:
        RunError: fewer than two pairs, or a side was rejected while it was measured.
        InfrastructureError: the machine failed.
    """
    if pairs < 2:
        raise RunError(f"expected at least 2 pairs, got {pairs}: one pair has no interval")
    results: dict[str, list[Scored]] = {side.name: [] for side in sides}
    nodes: list[str] = []
    for pair in range(pairs):
        content_seed = secrets.randbits(48)
        for side in sides if pair % 2 == 0 else sides[::-1]:
            evaluated = _measure(side, executor, trace_seed, content_seed, f"v-{side.name}-{pair}")
            nodes.append(evaluated.node)
            if isinstance(evaluated.evaluation, Rejected):
                verdict = evaluated.evaluation
                raise RunError(
                    f"{side.name} was rejected at stage '{verdict.stage}' in pair {pair + 1}: {verdict.reason}"
                )
            results[side.name].append(evaluated.evaluation)
            progress(f"pair {pair + 1}/{pairs}: {side.name} measured in {evaluated.elapsed_s:.1f} s")
    return _claim(sides, results, objectives, tuple(dict.fromkeys(nodes)))


def _measure(side: Subject, executor: Executor, trace_seed: int, content_seed: int, key: str) -> Evaluated:
    executor.submit(
        MeasureTask(
            key=key,
            trace_seed=trace_seed,
            content_seed=content_seed,
            repeats=1,
            judged=False,
            bundle=side.bundle,
            commit=side.commit,
        )
    )
    while True:
        for completion in executor.wait(1.0):
            if isinstance(completion.outcome, Fault):
                raise InfrastructureError(completion.outcome.reason)
            if isinstance(completion.outcome, Evaluated):
                return completion.outcome


def _claim(
    sides: tuple[Subject, Subject],
    results: Mapping[str, list[Scored]],
    objectives: ObjectiveSet,
    nodes: tuple[str, ...],
) -> Claim:
    gains: dict[str, Estimate] = {}
    measured: dict[str, dict[str, Estimate]] = {side.name: {} for side in sides}
    for objective in objectives:
        values = [[v for r in results[s.name] for v in objective_samples(objective, r.samples)] for s in sides]
        for side, samples in zip(sides, values, strict=True):
            wider = noise_factor(results[side.name])
            measured[side.name][objective.name] = estimate(samples, wider * objective.relative_noise)
        better, worse = values if objective.direction is Direction.MAX else values[::-1]
        gains[objective.name] = paired_ratio(better, worse)
    flags = tuple(sorted({flag for scored in results.values() for result in scored for flag in result.flags}))
    return Claim(
        candidate=sides[0].name,
        against=sides[1].name,
        pairs=len(results[sides[0].name]),
        gains=gains,
        measured=measured,
        nodes=nodes,
        flags=flags,
    )
