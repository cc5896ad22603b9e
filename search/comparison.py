"""Decides how fronts compare with each other: shared scale, quality indicators, coverage, contributions to the union.

All on costs (natural logarithms, minimised; population/objectives.py), so that a difference is a ratio of values. Every
volume and distance is taken on the *shared scale*, on which the best of every objective is 0 and the reference point 1;
the multiplicative epsilon is a ratio of values. Axes: N members, M objectives, R fronts, D bootstrap draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
import numpy.typing as npt

from search.indicators import hypervolume

FloatArray = npt.NDArray[np.float64]

MARGIN = 0.1
"""How far beyond the worst point the reference lies, as a share of the range, so that extreme members count too."""
LEAST_RANGE = math.log(2)
"""An objective in which all are alike within a factor of 2 does not get a scale on which their noise fills the box."""
INDICATORS = ("hypervolume", "igd_plus", "epsilon_additive", "epsilon_multiplicative", "contribution")
"""The rows of `qualities`; of the first and the last more is better, of the others less."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The shared normalisation of fronts that are compared; both points are costs (M,)."""

    ideal_M: FloatArray
    reference_M: FloatArray

    def apply(self, costs_NM: FloatArray) -> FloatArray:
        """Costs with the ideal at 0 and the reference at 1."""
        scaled: FloatArray = (costs_NM - self.ideal_M) / (self.reference_M - self.ideal_M)
        return scaled


def shared_scale(sets: Sequence[FloatArray]) -> Scale:
    """The ideal is the best finite cost of each objective, the reference the end of its range, moved out by `MARGIN`.

    The range reaches to the worst cost, and at least `LEAST_RANGE` far.

    Raises:
        ValueError: no point is finite.
    """
    points = np.vstack([finite(costs) for costs in sets])
    if not len(points):
        raise ValueError("expected at least one member with finite values in every objective")
    ideal = points.min(axis=0)
    return Scale(ideal, ideal + (1 + MARGIN) * np.maximum(points.max(axis=0) - ideal, LEAST_RANGE))


def finite(costs_NM: FloatArray) -> FloatArray:
    """The members without an infinite cost: the others can attain nothing in some objective."""
    kept: FloatArray = costs_NM[np.isfinite(costs_NM).all(axis=1)]
    return kept


def union_front(sets: Sequence[FloatArray]) -> FloatArray:
    """The non-dominated points of all sets; each point once."""
    points = np.unique(np.vstack([finite(costs) for costs in sets]), axis=0)
    return points[moocore.is_nondominated(points)] if len(points) else points


def qualities(sets: Sequence[FloatArray], scale: Scale) -> FloatArray:
    """Indicators (len(INDICATORS), R) of each front, relative to the union front of all of them.

    hypervolume              on the shared scale, reference point 1 (Zitzler & Thiele 1998)
    igd_plus                 mean distance of the union front to the front, on the shared scale (Ishibuchi et al. 2015)
    epsilon_additive         how far the worst-covered member of the union front is missed, on the shared scale
    epsilon_multiplicative   the factor by which it is missed in some objective, in values (Zitzler et al. 2003)
    contribution             sum of the hypervolume contributions of the front's members to the union front
    """
    kept = [finite(costs) for costs in sets]
    union = union_front(kept)
    scaled_union = scale.apply(union)
    shares = contributions(kept, scale)
    found = np.full((len(INDICATORS), len(kept)), np.inf)
    found[0] = 0.0
    for r, costs in enumerate(kept):
        if len(costs):
            scaled = scale.apply(costs)
            found[0, r] = hypervolume(scaled, np.ones(scaled.shape[1]))
            found[1, r] = moocore.igd_plus(scaled, ref=scaled_union)
            found[2, r] = moocore.epsilon_additive(scaled, ref=scaled_union)
            found[3, r] = multiplicative_epsilon(costs, union)
        found[4, r] = shares[r].sum()
    return found


def multiplicative_epsilon(costs_NM: FloatArray, others_NM: FloatArray) -> float:
    """The smallest factor by which all of `others` must be worsened to be weakly dominated; 1 or less: it covers all.

    Of values, whatever their direction: exp(cost) is the value where less is better, and its reciprocal where more is.
    Members with an infinite cost neither cover nor want to be covered.
    """
    costs_NM, others_NM = finite(costs_NM), finite(others_NM)
    if not len(others_NM):
        return 0.0
    if not len(costs_NM):
        return math.inf
    centre = others_NM.mean(axis=0)  # a common factor per objective changes no ratio, and keeps exp in range
    return float(moocore.epsilon_mult(np.exp(costs_NM - centre), ref=np.exp(others_NM - centre)))


def contributions(sets: Sequence[FloatArray], scale: Scale) -> list[FloatArray]:
    """Per set, the contribution (N,) of each of its members to the hypervolume of the union, on the shared scale.

    A point that is dominated, equal to another, or beyond the reference contributes 0, as does one that is not finite.
    """
    points = np.vstack(list(sets))
    gains = np.zeros(len(points))
    inside = np.flatnonzero((np.isfinite(points) & (points < scale.reference_M)).all(axis=1))
    if len(inside):
        gains[inside] = moocore.hv_contributions(scale.apply(points[inside]), ref=np.ones(points.shape[1]))
    return np.split(gains, np.cumsum([len(costs) for costs in sets])[:-1])


def coverage(a_NM: FloatArray, b_NM: FloatArray) -> float:
    """C(A, B): the share of B's members that some member of A weakly dominates (Zitzler & Thiele 1999); 1: all.

    NaN where B has no member.
    """
    return float(coverage_of_draws(a_NM[None], b_NM[None])[0])


def coverage_of_draws(a_DNM: FloatArray, b_DNM: FloatArray) -> FloatArray:
    """The same for every draw, (D,)."""
    if not b_DNM.shape[1]:
        return np.full(len(b_DNM), np.nan)
    beaten = np.all(a_DNM[:, :, None, :] <= b_DNM[:, None, :, :], axis=3)
    return np.asarray(np.mean(np.any(beaten, axis=1), axis=1), dtype=np.float64)


def bootstrap(drawn: Sequence[FloatArray], statistic: Callable[[Sequence[FloatArray]], FloatArray]) -> FloatArray:
    """`statistic` of every draw, stacked (D, …); `drawn` holds the costs (D, N, M) of each front's members."""
    draws = min((len(costs) for costs in drawn), default=0)
    return np.array([statistic([costs[d] for costs in drawn]) for d in range(draws)])
