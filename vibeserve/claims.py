"""Decides what may be claimed: a fresh paired (ABBA) measurement of one candidate against another on one machine.

The search selects permissively from few repeats, so its best numbers are partly luck. A claim is measured anew: pairs
run back to back on the same device, share their prompts and the held-out trace, and alternate in order, so that drift
cancels and luck of the search does not enter.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from population.archive import NOISY, noise_factor
from population.errors import InfrastructureError, RunError
from population.evaluation import Place, Rejected, Scored
from population.objectives import Direction, ObjectiveSet, objective_samples
from population.statistics import Estimate, estimate, paired_ratio
from vibeserve.executor import Evaluated, Executor, Fault, MeasureTask

LEAST_PAIRS = 10
"""Fewer are a look, and are labelled so."""


class Verdict(StrEnum):
    """What a claim says of one objective."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "no difference shown"
    """The interval includes 1."""
    NONE = "not a claim"
    """`Claim.shortfalls` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One side of a claim."""

    name: str
    commit: str
    bundle: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What was found. `gains`: objective → how many times better the candidate is, above 1 is better, with interval.

    The intervals of all objectives hold *together* with 95 % (Bonferroni), so that a target with many objectives is no
    easier to be lucky on, and a verdict never contradicts the interval beside it.
    """

    candidate: str
    against: str
    pairs: int
    gains: Mapping[str, Estimate]
    measured: Mapping[str, Mapping[str, Estimate]]
    """Subject → objective → value."""
    nodes: tuple[str, ...]
    devices: tuple[str, ...]
    """Node, GPUs and CPUs; one, unless something else held them in between."""
    flags: tuple[str, ...]
    """Caveats of the measurements, such as `noisy`."""
    discarded: int = 0
    """Pairs that others disturbed, measured again and not counted."""

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """Why these numbers are no claim; empty if they are one."""
        found = []
        if self.pairs < LEAST_PAIRS:
            found.append(f"{self.pairs} pairs, at least {LEAST_PAIRS} are needed")
        if len(self.devices) > 1:
            found.append(f"measured on several devices ({'; '.join(self.devices)}), one is needed")
        if NOISY in self.flags:
            found.append(f"others used the device, also when {self.discarded} pairs were measured again")
        return tuple(found)

    def verdict(self, objective: str) -> Verdict:
        """Better or worse only where the interval excludes 1."""
        if self.shortfalls:
            return Verdict.NONE
        gain = self.gains[objective]
        if gain.low <= 1 <= gain.high:
            return Verdict.UNDECIDED
        return Verdict.BETTER if gain.low > 1 else Verdict.WORSE

    def claimed(self, objective: str) -> float | None:
        """The gain that may be quoted: the end of the interval that is nearer to 1; None without a difference.

        Not the central value: among differences that were just shown, central values are too large on average.
        """
        gain = self.gains[objective]
        return {Verdict.BETTER: gain.low, Verdict.WORSE: gain.high}.get(self.verdict(objective))


def read_claims(run_dir: Path) -> dict[Path, dict[str, Any]]:
    """The claims that `vibeserve verify` has left in a run, as `claim_json` wrote them, oldest first."""
    found: dict[Path, dict[str, Any]] = {}
    for path in sorted((run_dir / "claims").glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue  # written halfway by a verify that was killed
        if isinstance(content, dict) and {"candidate", "against", "gains", "pairs"} <= content.keys():
            found[path] = content
    return found


def claim_json(claim: Claim) -> dict[str, object]:
    """The claim with its verdicts, for strict JSON: an infinite end of an interval is null."""

    def plain(found: Estimate) -> dict[str, object]:
        return {k: v if math.isfinite(v) else None for k, v in asdict(found).items()}

    return {
        "candidate": claim.candidate,
        "against": claim.against,
        "pairs": claim.pairs,
        "claim": not claim.shortfalls,
        "not_a_claim_because": list(claim.shortfalls),
        "joint_confidence": 0.95,
        "gains": {
            name: {**plain(gain), "verdict": claim.verdict(name).value, "claimed": claim.claimed(name)}
            for name, gain in claim.gains.items()
        },
        "measured": {side: {n: plain(e) for n, e in values.items()} for side, values in claim.measured.items()},
        "nodes": list(claim.nodes),
        "devices": list(claim.devices),
        "flags": list(claim.flags),
        "discarded_pairs": claim.discarded,
    }


def measure_claim(
    sides: tuple[Subject, Subject],
    executor: Executor,
    objectives: ObjectiveSet,
    trace_seed: int,
    pairs: int,
    progress: Callable[[str], None],
) -> Claim:
    """Measure `sides` in pairs, one evaluation at a time.

    A pair that others disturbed is discarded and measured again, at most as often as there are pairs.

    Raises:
        RunError: fewer than two pairs, or a side was rejected while it was measured.
        InfrastructureError: the machine failed.
    """
    if pairs < 2:
        raise RunError(f"expected at least 2 pairs, got {pairs}: one pair has no interval")
    results: dict[str, list[Scored]] = {side.name: [] for side in sides}
    places: list[Place] = []
    discarded = 0
    for pair in range(pairs):
        order = sides if pair % 2 == 0 else sides[::-1]
        while True:
            measured = _pair(order, executor, trace_seed, pair, progress)
            if discarded == pairs or not any(NOISY in scored.flags for _, scored in measured):
                break
            discarded += 1
            progress(f"pair {pair + 1} of {pairs}: others used the device, so it is measured again")
        for side, (evaluated, scored) in zip(order, measured, strict=True):
            results[side.name].append(scored)
            places += [evaluated.place] if evaluated.place else []
    return replace(_claim(sides, results, objectives, places), discarded=discarded)


def _pair(
    order: tuple[Subject, ...], executor: Executor, trace_seed: int, pair: int, progress: Callable[[str], None]
) -> list[tuple[Evaluated, Scored]]:
    """Both sides in this order, with prompts that no other pair has.

    Raises:
        RunError: a side was rejected.
    """
    content_seed = secrets.randbits(48)
    found = []
    for side in order:
        evaluated = _measure(side, executor, trace_seed, content_seed, f"v-{side.name}-{pair}")
        verdict = evaluated.evaluation
        if isinstance(verdict, Rejected):
            raise RunError(f"{side.name} was rejected at stage '{verdict.stage}' in pair {pair + 1}: {verdict.reason}")
        found.append((evaluated, verdict))
        progress(f"pair {pair + 1}: {side.name} measured in {evaluated.elapsed_s:.1f} s")
    return found


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
    places: Sequence[Place],
) -> Claim:
    gains: dict[str, Estimate] = {}
    measured: dict[str, dict[str, Estimate]] = {side.name: {} for side in sides}
    for objective in objectives:
        values = [[v for r in results[s.name] for v in objective_samples(objective, r.samples)] for s in sides]
        for side, samples in zip(sides, values, strict=True):
            wider = noise_factor(results[side.name])
            measured[side.name][objective.name] = estimate(samples, objective.relative_noise, wider)
        better, worse = values if objective.direction is Direction.MAX else values[::-1]
        gains[objective.name] = paired_ratio(better, worse, len(objectives))
    flags = tuple(sorted({flag for scored in results.values() for result in scored for flag in result.flags}))
    return Claim(
        candidate=sides[0].name,
        against=sides[1].name,
        pairs=len(results[sides[0].name]),
        gains=gains,
        measured=measured,
        nodes=tuple(dict.fromkeys(place.node for place in places)),
        devices=tuple(dict.fromkeys(map(str, places))),
        flags=flags,
    )
