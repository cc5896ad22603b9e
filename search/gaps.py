"""Decides where the front has a hole: the widest gap between neighbours in log-cost space, and its goal text.

Neighbours are consecutive members in one objective (the gaps that crowding distance sums up); a gap is worth filling
when it is wider than the members' measurement noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from population.objectives import Direction, ObjectiveSet

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Two neighbours of the front, by index, and how far apart they are (share of the front's range, 0..1)."""

    better: int
    """Index of the end that is better in `objective`."""
    worse: int
    objective: int
    width: float


def widest(costs_NM: FloatArray, noise_M: FloatArray) -> Gap | None:
    """The widest gap of a front; None with fewer than two finite members, or when no gap exceeds the noise.

    Args:
        noise_M: log width below which two members cannot be told apart.
    """
    rows = np.flatnonzero(np.isfinite(costs_NM).all(axis=1))
    if len(rows) < 2:
        return None
    costs = costs_NM[rows]
    span_M = costs.max(axis=0) - costs.min(axis=0)
    best: Gap | None = None
    for objective in range(costs.shape[1]):
        order = np.argsort(costs[:, objective], kind="stable")
        steps = np.diff(costs[order, objective])
        if len(steps) == 0 or steps.max() <= noise_M[objective]:
            continue
        at = int(steps.argmax())
        width = float(steps[at] / span_M[objective] * min(1.0, span_M[objective] / span_M.max()))
        if best is None or width > best.width:
            best = Gap(better=int(rows[order[at]]), worse=int(rows[order[at + 1]]), objective=objective, width=width)
    return best


def goal(gap: Gap, start: int, ids: Sequence[str], costs_NM: FloatArray, objectives: ObjectiveSet) -> str:
    """What fills the gap from its end `start`, in words: what to win from the other end, and what not to give up."""
    other = gap.worse if start == gap.better else gap.better
    won = [o for o, here, there in zip(objectives, costs_NM[start], costs_NM[other], strict=True) if there < here]
    kept = [o.name for o in objectives if o not in won]
    verbs = _listed([f"{'raise' if o.direction is Direction.MAX else 'lower'} {o.name}" for o in won])
    task = f"{verbs[:1].upper()}{verbs[1:]}{f' without giving up {_listed(kept)}' if kept else ''}."
    ends = " and ".join(f"{ids[i]} ({_numbers(costs_NM[i], objectives)})" for i in (start, other))
    middle = _numbers((costs_NM[start] + costs_NM[other]) / 2, objectives)
    return f"{task} The front has its widest gap between {ends}: fill it, aim at {middle} or better."


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _numbers(costs_M: FloatArray, objectives: ObjectiveSet) -> str:
    return ", ".join(
        f"{o.name} {o.value(float(cost)):.4g}{f' {o.unit}' if o.unit else ''}"
        for o, cost in zip(objectives, costs_M, strict=True)
    )
