"""Decides how a search's progress is drawn: hypervolume against children, wall time, GPU-hours and dollars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from population.candidate import candidate_id
from population.events import Drafted, Ended, EpochStarted, Faulted, FinalMeasured, MutationDone, Remeasured, SentBack
from vibeserve.accounts import Tariff
from vibeserve.agents.prices import Bill, total
from vibeserve.agents.prices import Prices as ModelPrices
from vibeserve.dashboard.spending import Prices, gpus_per_evaluation
from vibeserve.follower import Followed
from vibeserve.front_rows import SEED

MOST_POINTS = 1500


@dataclass(frozen=True, slots=True)
class Step:
    """Where the run stood when a child had ended."""

    number: int
    children: int
    elapsed_s: float
    """Active seconds of the run."""
    leased_s: float
    """Wall seconds of all evaluations so far."""
    hypervolume: float
    gained: float
    """What this child added."""
    bill: Bill
    """Of all models so far."""


def steps(run: Followed) -> tuple[Step, ...]:
    """One per child that has ended, in that order; hypervolume is 0 until the seed is scored.

    Each candidate counts with what is known about it now, from the moment at which it ended: later measurements refine
    a point of the past, and a candidate that failed one later never counted.
    """
    return run.kept("steps", lambda: _steps(run, Tariff.of_run(run.run_dir).prices))


def _steps(run: Followed, models: ModelPrices) -> tuple[Step, ...]:
    from search.indicators import hypervolume

    archive = run.state.archive
    scored = frozenset(archive.scored)
    reference = archive.costs(SEED) if SEED in scored else None
    front = np.empty((0, len(archive.objectives)))
    volume, past_s, epoch_s, leased_s, children = 0.0, 0.0, 0.0, 0.0, 0
    found: list[Step] = []
    bill = Bill()
    for event in run.events:
        if isinstance(event, Drafted | MutationDone | Ended | Faulted):
            bill += total(event.spent, models)
        if isinstance(event, EpochStarted):
            past_s, epoch_s = past_s + epoch_s, 0.0
        epoch_s = max(epoch_s, event.active_s)
        if isinstance(event, SentBack | Ended | Remeasured | FinalMeasured):
            leased_s += event.elapsed_s
        if not isinstance(event, Ended):
            continue
        name, before = candidate_id(event.number), volume
        children += event.number > 0
        if reference is not None and name in scored:
            costs = archive.costs(name)
            if not (front <= costs).all(axis=1).any():
                front = np.vstack([front[~(costs <= front).all(axis=1)], costs])
                volume = hypervolume(front, reference)
        found.append(Step(event.number, children, past_s + epoch_s, leased_s, volume, max(0.0, volume - before), bill))
    return tuple(found)


def progress(run: Followed, prices: Prices) -> dict[str, Any]:
    """The curve over all four costs, thinned where it is flat."""
    taken = steps(run)
    shown = _thinned(taken)
    gpus = gpus_per_evaluation(run)
    hours = None if gpus is None else [step.leased_s * gpus / 3600 for step in shown]
    why = _why_no_dollars(gpus, prices, taken[-1].bill if taken else Bill())
    gpu_dollars = prices.dollars(hours) if hours and gpus else None
    return {
        "children": [step.children for step in shown],
        "elapsed_s": [round(step.elapsed_s, 3) for step in shown],
        "gpu_hours": hours if gpus else None,
        "dollars": None if why else _dollars(gpu_dollars, shown),
        "why_no_gpu_hours": None if gpus else _no_gpus(gpus),
        "why_no_dollars": why,
        "hypervolume": [float(f"{step.hypervolume:.6g}") for step in shown],
        "ids": [candidate_id(step.number) for step in shown],
        "total": len(taken),
        "reference": "the seed" if SEED in run.state.archive.scored else None,
    }


def _no_gpus(gpus: int | None) -> str:
    if gpus is None:
        return "Unknown: the run's target cannot be read"
    return "None: the target asks for no GPU"


def _why_no_dollars(gpus: int | None, prices: Prices, bill: Bill) -> str | None:
    """None: what everything has cost is known, GPUs and models together."""
    if not bill.known:
        return f"Unknown: {'; '.join(bill.why_unknown)}"
    if gpus is None:
        return _no_gpus(gpus)
    if gpus and not prices.gpu_hour:
        return "Unknown until you say what a GPU-hour costs: vibeserve dashboard --gpu-hour-dollars 2.50"
    if not gpus and not bill.dollars:
        return "None for GPUs, as the target asks for none, and no language model was paid"
    return None


def _dollars(gpus: Sequence[float] | None, shown: Sequence[Step]) -> list[float]:
    return [(gpus[index] if gpus else 0.0) + step.bill.dollars for index, step in enumerate(shown)]


def _thinned(taken: Sequence[Step]) -> list[Step]:
    """Every step that gained, the ends, and so many between that the curve looks the same."""
    if len(taken) <= MOST_POINTS:
        return list(taken)
    gained = [index for index, step in enumerate(taken) if step.gained]
    every = np.linspace(0, len(taken) - 1, max(2, MOST_POINTS - len(gained)), dtype=np.intp)
    return [taken[index] for index in sorted({*gained, *(int(i) for i in every)})]
