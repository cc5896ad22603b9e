"""Decides what is known about one child of a run, scored or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from population.archive import Archive
from population.candidate import Candidate, Proposal
from population.errors import UsageError
from population.evaluation import Evaluation, Rejected, Scored, Stage
from population.genome import KnobValue
from population.replay import State
from population.statistics import Estimate
from vibeserve.display import MetricView
from vibeserve.front_rows import candidate_row, gaps_of, weakest_tier
from vibeserve.runs import Reference, candidate_files, read_run
from vibeserve.summary import metrics_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """One child; what does not apply is empty."""

    id: str
    run: str
    proposal: Proposal
    verdict: str
    """`scored, on the front`, `scored`, `rejected at audit`, `in flight`."""
    lineage: tuple[str, ...]
    """First parents, from the child to the seed."""
    commit: str | None = None
    summary: str = ""
    metrics: tuple[MetricView, ...] = ()
    """The objectives."""
    others: Mapping[str, Estimate] = field(default_factory=dict)
    """Every other metric that was measured."""
    reason: str = ""
    evidence: str = ""
    flags: tuple[str, ...] = ()
    tier: str | None = None
    """The weakest isolation tier of its evaluations; None if its server was never to be started."""
    gaps: tuple[str, ...] = ()
    audit: Mapping[str, float] = field(default_factory=dict)
    hints: Mapping[str, float | str] = field(default_factory=dict)
    stage_s: Mapping[str, float] = field(default_factory=dict)
    components: Mapping[str, str] = field(default_factory=dict)
    """Component → implementation."""
    knobs: Mapping[str, KnobValue] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


def dossier(reference: Reference) -> Dossier:
    """Everything the ledger says about a child.

    Raises:
        UsageError: the run has no such child.
    """
    return dossier_of(reference, read_run(reference.run_dir)[1])


def dossier_of(reference: Reference, state: State) -> Dossier:
    """The same of a state that was read already.

    Raises:
        UsageError: the run has no such child.
    """
    number, archive = int(reference.candidate[1:]), state.archive
    child = archive.children.get(number)
    proposal = child.proposal if child else state.pending.get(number)
    if proposal is None:
        raise UsageError(f"{reference.run_dir.name} has no child {reference.candidate}; it has {candidate_span(state)}")
    candidate = child if isinstance(child, Candidate) else None
    evaluations = archive.evaluations(candidate.id) if candidate else (child.evaluation,) if child else ()
    rejected = next((e for e in reversed(evaluations) if isinstance(e, Rejected)), None)
    first = next((e for e in evaluations if isinstance(e, Scored)), None)
    scored = candidate is not None and candidate.id in archive.scored
    metrics = candidate_row(archive, proposal.id).metrics if scored else ()
    flying = state.mutated.get(number)
    return Dossier(
        id=proposal.id,
        run=reference.run_dir.name,
        proposal=proposal,
        verdict=_verdict(archive, proposal.id, evaluations, rejected),
        lineage=_lineage(archive, proposal),
        commit=candidate.commit if candidate else flying.commit if flying else None,
        summary=state.summaries.get(number, ""),
        metrics=metrics,
        others=_others(archive, proposal.id, metrics) if scored else {},
        reason=rejected.reason if rejected else "",
        evidence=rejected.evidence if rejected else "",
        flags=tuple(sorted({flag for e in evaluations if isinstance(e, Scored) for flag in e.flags})),
        tier=weakest_tier(evaluations) if any(_ran(e) for e in evaluations) else None,
        gaps=gaps_of(evaluations),
        audit=first.audit if first else {},
        hints=first.hints if first else {},
        stage_s=evaluations[0].stage_s if evaluations else {},
        components={n: c.implementation for n, c in candidate.genome.components.items()} if candidate else {},
        knobs={n: k.value for n, k in candidate.genome.knobs.items()} if candidate else {},
        files=tuple(candidate_files(reference.run_dir, proposal.id)),
    )


def dossier_json(found: Dossier) -> dict[str, Any]:
    """The object of `vibeserve show --json`."""
    return {
        "id": found.id,
        "run": found.run,
        "verdict": found.verdict,
        "operator": str(found.proposal.operator),
        "recipe": found.proposal.recipe,
        "parents": list(found.proposal.parents),
        "inspirations": list(found.proposal.inspirations),
        "goal": found.proposal.goal,
        "lineage": list(found.lineage),
        "commit": found.commit,
        "summary": found.summary,
        "components": dict(found.components),
        "knobs": dict(found.knobs),
        "metrics": metrics_json(found.metrics),
        "other_metrics": {
            n: {"value": e.value, "low": e.low, "high": e.high, "n": e.n} for n, e in found.others.items()
        },
        "reason": found.reason or None,
        "evidence": found.evidence or None,
        "flags": list(found.flags),
        "tier": found.tier,
        "gaps": list(found.gaps),
        "audit": dict(found.audit),
        "hints": dict(found.hints),
        "stage_s": dict(found.stage_s),
        "files": [str(f) for f in found.files],
    }


def candidate_span(state: State) -> str:
    """Which children there are, in words."""
    return "none yet" if state.next_number == 0 else f"c000000 to c{state.next_number - 1:06d}"


def _ran(evaluation: Evaluation) -> bool:
    return isinstance(evaluation, Scored) or evaluation.stage not in (Stage.MUTATE, Stage.DEDUPE)


def _verdict(archive: Archive, name: str, evaluations: tuple[Evaluation, ...], rejected: Rejected | None) -> str:
    if rejected is not None:
        again = " when it was measured again" if len(evaluations) > 1 else ""
        return f"rejected at {rejected.stage}{again}"
    if not evaluations:
        return "in flight"
    return "scored, on the front" if name in archive.front else "scored"


def _lineage(archive: Archive, proposal: Proposal) -> tuple[str, ...]:
    names, at = [proposal.id], proposal
    while at.parents and at.parents[0] in archive.candidates:
        at = archive.candidates[at.parents[0]].proposal
        names.append(at.id)
    return tuple(names)


def _others(archive: Archive, name: str, metrics: tuple[MetricView, ...]) -> dict[str, Estimate]:
    shown = {metric.name for metric in metrics}
    return {key: value for key, value in archive.metrics(name).items() if key not in shown}
