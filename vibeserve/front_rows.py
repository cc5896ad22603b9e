"""Decides how a candidate stands beside others: what it is called, what it measured, and what that can claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from population.archive import Archive
from population.candidate import Proposal, candidate_id
from population.evaluation import Evaluation
from population.objectives import Objective
from population.statistics import Estimate
from vibeserve.display import FrontRow, MetricView

SEED = candidate_id(0)


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
        label=label_of(proposal) or (summaries or {}).get(proposal.number, "").removeprefix(f"{proposal.operator}: "),
        metrics=metric_views(tuple(archive.objectives), archive.estimates(member), seed),
        tier=weakest_tier(archive.evaluations(member)),
        gaps=gaps_of(archive.evaluations(member)),
    )


def seed_row(archive: Archive) -> FrontRow | None:
    """The seed's row; None until it is scored."""
    return candidate_row(archive, SEED) if SEED in archive.scored else None


def metric_views(
    objectives: Sequence[Objective], estimates: Mapping[str, Estimate], seed: Mapping[str, Estimate] | None
) -> tuple[MetricView, ...]:
    """Estimates of the objectives, with gains over the seed where it was scored."""
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


def label_of(proposal: Proposal) -> str:
    """What a proposal changes: the recipe's name, or the knobs."""
    knobs = ", ".join(f"{name}={value}" for name, value in proposal.knobs.items())
    return " ".join(part for part in (proposal.recipe, knobs) if part)


def weakest_tier(evaluations: Sequence[Evaluation]) -> str:
    """The tier that all of these measurements can claim."""
    return max((evaluation.tier for evaluation in evaluations), default="C")


def gaps_of(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """What was left open in any of these measurements."""
    return tuple(dict.fromkeys(gap for evaluation in evaluations for gap in evaluation.gaps))
