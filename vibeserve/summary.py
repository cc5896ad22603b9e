"""Decides what a run amounts to: everything shown is computed from its ledger, and from nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from population.archive import Archive, noise_factor
from population.candidate import candidate_id
from population.evaluation import Rejected, Scored
from population.ledger import read_events
from population.objectives import Objective, objective_samples
from population.replay import State
from population.statistics import Estimate, estimate
from vibeserve.display import FrontRow, MetricView
from vibeserve.front_rows import SEED, front_rows, gaps_of, metric_views, seed_row, weakest_tier
from vibeserve.growth import hypervolume
from vibeserve.lifecycle import RunState, run_state


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
            metrics=metric_views(objectives, estimates, seed),
            tier=weakest_tier(pooled[subject]),
            gaps=gaps_of(pooled[subject]),
        )
        for subject, estimates in found.items()
    }


def _pool(objectives: Sequence[Objective], scored: Sequence[Scored]) -> dict[str, Estimate]:
    samples = {o.name: [v for s in scored for v in objective_samples(o, s.samples)] for o in objectives}
    wider = noise_factor(scored)
    return {o.name: estimate(samples[o.name], o.relative_noise, wider) for o in objectives}


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
