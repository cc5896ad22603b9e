"""Decides what is said about a run: everything shown is computed from its ledger, and from nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from population.archive import Archive, noise_factor
from population.candidate import Proposal, candidate_id
from population.evaluation import Evaluation, Rejected, Scored
from population.events import Event
from population.ledger import read_events
from population.objectives import Objective, objective_samples
from population.replay import State
from population.statistics import Estimate, estimate
from vibeserve.display import FrontRow, MetricView
from vibeserve.lifecycle import RunState, run_state

SEED = candidate_id(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run has found so far."""

    run: str
    run_dir: Path
    state: RunState
    stopped_because: str | None
    """None while it runs, or after it was killed."""
    elapsed_s: float
    rng_seed: int | None
    children: int
    """Children that have ended, the seed not counted."""
    in_flight: int
    scored: int
    rejected: Mapping[str, int]
    """Stage → children rejected there, the seed not counted."""
    errors: int
    """Faults of the machine, none of them charged to a candidate."""
    seed: FrontRow | None
    """None until the seed is scored."""
    baselines: Mapping[str, FrontRow]
    """The target's other baselines; measured at the end, on the held-out trace."""
    front: tuple[FrontRow, ...]
    """Best in the first objective first."""
    held_out: Mapping[str, FrontRow]
    """Candidate → fresh measurement on the held-out trace; never pooled with the search's own."""
    hypervolume: float | None
    """In log space; None without a seed."""
    reference: Mapping[str, float]
    """Objective → value of the reference point, the seed."""
    commits: Mapping[str, str]
    """Candidate → commit, for the front, the seed and what was measured at the end."""


def summarise(run_dir: Path) -> Summary:
    """The summary of a run, running or not.

    Raises:
        LedgerError: the ledger is damaged before its tail.
    """
    events = list(read_events(run_dir / "ledger"))
    return summary_of(run_dir, State.replay(events), run_state(events))


def summary_of(run_dir: Path, state: State, life: RunState) -> Summary:
    """The summary of a replayed state."""
    archive = state.archive
    scored = frozenset(archive.scored)
    finals = _finals(state)
    held_out = {name: row for name, row in finals.items() if name in archive.candidates}
    seed = seed_row(archive)
    return Summary(
        run=state.started.run if state.started else run_dir.name,
        run_dir=run_dir,
        state=life,
        stopped_because=state.stopped.reason if state.stopped else None,
        elapsed_s=state.elapsed_s,
        rng_seed=state.started.seed if state.started else None,
        children=sum(number > 0 for number in archive.children),
        in_flight=len(state.pending),
        scored=len(scored - {SEED}),
        rejected=rejections(archive),
        errors=sum(state.faults.values()),
        seed=seed,
        baselines={name: row for name, row in finals.items() if name not in archive.candidates},
        front=front_rows(archive, state.summaries),
        held_out=held_out,
        hypervolume=hypervolume(archive),
        reference={m.name: m.value for m in seed.metrics} if seed else {},
        commits={i: archive.candidates[i].commit for i in (*archive.front, *held_out, SEED) if i in archive.candidates},
    )


def front_rows(archive: Archive, summaries: Mapping[int, str] | None = None) -> tuple[FrontRow, ...]:
    """The front, best in the first objective first, with gains over the seed."""
    rows = [candidate_row(archive, member, summaries) for member in archive.front]
    first = next(iter(archive.objectives), None)
    return tuple(sorted(rows, key=lambda row: first.cost(row.metrics[0].value))) if first else ()


def candidate_row(archive: Archive, member: str, summaries: Mapping[int, str] | None = None) -> FrontRow:
    """One scored candidate."""
    proposal = archive.candidates[member].proposal
    seed = archive.estimates(SEED) if SEED in archive.scored else None
    return FrontRow(
        id=member,
        operator=str(proposal.operator),
        parents=proposal.parents,
        label=label_of(proposal) or (summaries or {}).get(proposal.number, ""),
        metrics=_views(tuple(archive.objectives), archive.estimates(member), seed),
        tier=weakest_tier(archive.evaluations(member)),
        gaps=gaps_of(archive.evaluations(member)),
    )


def weakest_tier(evaluations: Sequence[Evaluation]) -> str:
    """The tier that all of these measurements can claim."""
    return max((evaluation.tier for evaluation in evaluations), default="C")


def gaps_of(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """What was left open in any of these measurements."""
    return tuple(dict.fromkeys(gap for evaluation in evaluations for gap in evaluation.gaps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A reporting unit: so many children in order of their number, whether or not the search waits for them."""

    number: int
    children: int
    scored: int
    hypervolume: float
    """At its end, in log space with the reference point at the seed."""


def generations(archive: Archive, size: int) -> tuple[Generation, ...]:
    """Progress of a run by generations of `size` children; empty without a scored seed."""
    from search.indicators import generation, hypervolume_history

    if SEED not in archive.scored:
        return ()
    volumes = dict(hypervolume_history(archive, archive.costs(SEED)))
    members: dict[int, list[int]] = {}
    for number in sorted(n for n in volumes if n > 0):
        members.setdefault(generation(number, size), []).append(number)
    scored = frozenset(archive.scored)
    return tuple(
        Generation(
            number=index,
            children=len(numbers),
            scored=sum(candidate_id(n) in scored for n in numbers),
            hypervolume=volumes[numbers[-1]],
        )
        for index, numbers in sorted(members.items())
    )


def seed_row(archive: Archive) -> FrontRow | None:
    """The seed's row; None until it is scored."""
    return candidate_row(archive, SEED) if SEED in archive.scored else None


def label_of(proposal: Proposal) -> str:
    """What a proposal changes: the recipe's name, or the knobs."""
    knobs = ", ".join(f"{name}={value}" for name, value in proposal.knobs.items())
    return " ".join(part for part in (proposal.recipe, knobs) if part)


def hypervolume(archive: Archive) -> float | None:
    """Hypervolume of the front in log space with the reference point at the seed; None without a scored seed."""
    from search.indicators import hypervolume as volume

    if SEED not in archive.scored:
        return None
    return volume(archive.costs_of(archive.front), archive.costs(SEED))


def rejections(archive: Archive) -> dict[str, int]:
    """Stage → children, the seed not counted; a candidate that failed a re-measurement counts there."""
    scored, stages = frozenset(archive.scored), Counter[str]()
    for number, child in archive.children.items():
        name = candidate_id(number)
        if number == 0 or name in scored:
            continue
        evaluations = archive.evaluations(name) if name in archive.candidates else (child.evaluation,)
        stages[next(str(e.stage) for e in reversed(evaluations) if isinstance(e, Rejected))] += 1
    return dict(stages)


def _finals(state: State) -> dict[str, FrontRow]:
    """Subject → its final measurements pooled over the rounds; gains over the seed's own final, where there is one."""
    objectives = tuple(state.archive.objectives)
    pooled: dict[str, list[Scored]] = {}
    for (subject, _), event in sorted(state.finals.items()):
        if isinstance(event.evaluation, Scored):
            pooled.setdefault(subject, []).append(event.evaluation)
    found = {subject: _pool(objectives, scored) for subject, scored in pooled.items()}
    seed = found.get(SEED) or (state.archive.estimates(SEED) if SEED in state.archive.scored else None)
    return {
        subject: FrontRow(
            id=subject,
            operator="final",
            metrics=_views(objectives, estimates, seed),
            tier=weakest_tier(pooled[subject]),
            gaps=gaps_of(pooled[subject]),
        )
        for subject, estimates in found.items()
    }


def _pool(objectives: Sequence[Objective], scored: Sequence[Scored]) -> dict[str, Estimate]:
    samples = {o.name: [v for s in scored for v in objective_samples(o, s.samples)] for o in objectives}
    wider = noise_factor(scored)
    return {o.name: estimate(samples[o.name], o.relative_noise, wider) for o in objectives}


def _views(
    objectives: Sequence[Objective], estimates: Mapping[str, Estimate], seed: Mapping[str, Estimate] | None
) -> tuple[MetricView, ...]:
    return tuple(
        MetricView(
            name=o.name,
            value=estimates[o.name].value,
            low=estimates[o.name].low,
            high=estimates[o.name].high,
            n=estimates[o.name].n,
            unit=o.unit,
            direction=str(o.direction),
            gain=o.gain(estimates[o.name].value, seed[o.name].value) if seed else None,
        )
        for o in objectives
    )


def to_json(summary: Summary) -> dict[str, Any]:
    """The object that `run`, `resume`, `front`, `status` and `ls` print with --json (docs/cli.md)."""
    return {
        "run": summary.run,
        "run_dir": str(summary.run_dir),
        "state": str(summary.state),
        "stopped_because": summary.stopped_because,
        "elapsed_s": round(summary.elapsed_s, 3),
        "rng_seed": summary.rng_seed,
        "children": summary.children,
        "scored": summary.scored,
        "rejected": dict(summary.rejected),
        "errors": summary.errors,
        "seed": metrics_json(summary.seed.metrics) if summary.seed else None,
        "baselines": {name: metrics_json(row.metrics) for name, row in summary.baselines.items()},
        "hypervolume": summary.hypervolume,
        "reference_point": dict(summary.reference),
        "front": [row_json(row, summary.commits[row.id]) for row in summary.front],
        "held_out": {name: metrics_json(row.metrics) for name, row in summary.held_out.items()},
    }


def row_json(row: FrontRow, commit: str) -> dict[str, Any]:
    """One member of the front."""
    return {
        "id": row.id,
        "commit": commit,
        "parents": list(row.parents),
        "operator": row.operator,
        "tier": row.tier,
        "gaps": list(row.gaps),
        "metrics": metrics_json(row.metrics),
    }


def metrics_json(metrics: Sequence[MetricView]) -> dict[str, dict[str, Any]]:
    """Name → value, low, high, n, unit, direction."""
    names = ("value", "low", "high", "n", "unit", "direction")
    return {metric.name: {name: getattr(metric, name) for name in names} for metric in metrics}


def read_run(run_dir: Path) -> tuple[list[Event], State]:
    """A run's events and what they amount to."""
    events = list(read_events(run_dir / "ledger"))
    return events, State.replay(events)
