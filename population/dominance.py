"""Decides which of two noisy candidates stands for both, and what the front is.

All on costs (natural logarithms, minimised; axes N candidates, M objectives) with the ends of their 95 % intervals.

    better(a, b, m)     a's cost is lower than b's by more than the combined margin of the two intervals in objective m
    a precedes b        a's total cost (the logarithm of the product of all gains) is lower; ties go to the lower cost
                        in the first objective that differs, then to the smaller index
    a dominates b       a precedes b, and b is better than a in no objective

So a dominated candidate has shown no strength beyond the noise that its dominator lacks, and is weaker on the whole.
Near-duplicates (no proven difference either way) fall under the same rule: the one with the lower total cost stays.

The relation is irreflexive, asymmetric and acyclic, because it only ever points down the order of total costs. It is
not transitive, and none that tolerates noise is: a drift of several steps within the noise adds up to a real
difference. So the front is not "dominated by nobody" (which would lose a real trade-off at the end of such a drift)
but the relation's kernel: no member dominates another, and everything outside is dominated by a member. The kernel of
an acyclic relation exists, is unique, and so does not depend on the order of arrival. Walking down the total costs
finds it.
Without noise (all margins 0, distinct points) it is the ordinary Pareto front. See C. Berge, Graphs (kernels), and
M. Laumanns et al., Combining convergence and diversity in evolutionary multiobjective optimization, 2002 (ε-archives).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Points:
    """Costs with the optimistic (`low_NM`) and pessimistic (`high_NM`) ends of their intervals, all of shape (N, M)."""

    costs_NM: FloatArray
    low_NM: FloatArray
    high_NM: FloatArray

    def __post_init__(self) -> None:
        shapes = {self.costs_NM.shape, self.low_NM.shape, self.high_NM.shape}
        if len(shapes) != 1 or self.costs_NM.ndim != 2:
            raise ValueError(f"expected costs, low and high of one shape (N, M), got {sorted(shapes)}")

    def __len__(self) -> int:
        return len(self.costs_NM)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> Points:
        return Points(self.costs_NM[rows], self.low_NM[rows], self.high_NM[rows])


def better(a: Points, b: Points) -> BoolArray:
    """Whether a's cost is lower than b's beyond the combined margin; elementwise, one of both may have a single row.

    The margin is the root of the sum of squares of a's pessimistic and b's optimistic half-width: the half-width of a
    95 % interval of the difference. A difference that is infinite on both sides, or unbounded, is never proven.
    """
    return beyond_margin(a.costs_NM, a.high_NM, b.low_NM, b.costs_NM)


def beyond_margin(costs: FloatArray, high: FloatArray, other_low: FloatArray, other_costs: FloatArray) -> BoolArray:
    """As `better`, on arrays (…, M) that broadcast: of one side costs and pessimistic ends, of the other optimistic."""
    return _width(costs, other_costs) > np.hypot(_width(costs, high), _width(other_low, other_costs))


def _width(low: FloatArray, high: FloatArray) -> FloatArray:
    """high - low, where equal infinities differ by 0."""
    with np.errstate(invalid="ignore"):
        return np.where(low == high, 0.0, high - low)


def ranking(points: Points) -> npt.NDArray[np.intp]:
    """Row indices in the order of `precedes`. A point that is nowhere worse than another never comes after it."""
    costs = points.costs_NM
    order: npt.NDArray[np.intp] = np.lexsort((*costs.T[::-1], total_costs(costs)))
    return order


def total_costs(costs_NM: FloatArray) -> FloatArray:
    """Total costs (N,): the logarithm of the product of all gains, and infinite with any of them."""
    with np.errstate(invalid="ignore"):
        totals: FloatArray = np.where(np.isposinf(costs_NM).any(axis=1), np.inf, costs_NM.sum(axis=1))
    return totals


def dominated_by(point: Points, others: Points) -> BoolArray:
    """Which of `others` (N,) dominate the single `point`, which counts as the last to arrive."""
    together = Points(
        np.concatenate([others.costs_NM, point.costs_NM]),
        np.concatenate([others.low_NM, point.low_NM]),
        np.concatenate([others.high_NM, point.high_NM]),
    )
    order = ranking(together)
    precedes = np.zeros(len(together), dtype=np.bool_)
    precedes[order[: int(np.flatnonzero(order == len(others))[0])]] = True
    stands_out = np.asarray(better(point, others).any(axis=1), dtype=np.bool_)
    return precedes[:-1] & ~stands_out


def front(points: Points) -> npt.NDArray[np.intp]:
    """Row indices of the front (the kernel), in the order of `precedes`; O(front * N * M).

    `kernel.Kernel` keeps it up to date for less, where points come and change.
    """
    waiting = ranking(points)
    kept: list[np.intp] = []
    while waiting.size:
        first = waiting[0]
        kept.append(first)
        rest = waiting[1:]
        waiting = rest[better(points[rest], points[np.array([first])]).any(axis=1)]
    return np.array(kept, dtype=np.intp)
