"""Decides how the noise of repeats reaches what is computed from many members: draws of their costs, and intervals.

A draw is a set of fronts that might as well have been measured. Its spread agrees with the interval that is shown
beside each value (`population.statistics.estimate`): a plain bootstrap of few repeats is too narrow (73 % at n = 3
where 95 is meant). Axes: D draws, M objectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from population.objectives import Objective
from population.statistics import Estimate

FloatArray = npt.NDArray[np.float64]

_Z95 = 1.959964
_LEAST_REPEATS = 4
"""Fewer repeats say too little about their own spread; the estimate's interval has the declared noise in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure with its 95 % interval; equal ends where nothing varies, NaN where it is not defined."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether the interval lies on one side of `value`."""
        return self.low > value or self.high < value


def draw_costs(
    objectives: Sequence[Objective],
    samples: Mapping[str, Sequence[float]],
    estimates: Mapping[str, Estimate],
    draws: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Costs (D, M) of one member as it might have been measured.

    From four repeats on the repeats are resampled, with the same picks for every objective where all have as many, so
    that what varies together stays together; the deviations are stretched to the width of the estimate's interval.
    Below that, and where all repeats agree, they are normal. Members with infinite or zero repeats give the median of
    the resampled ones, which may be infinite.
    """
    columns = []
    picks: dict[int, npt.NDArray[np.int64]] = {}
    for objective in objectives:
        costs = np.array([objective.cost(value) for value in samples[objective.name]])
        if len(costs) not in picks:
            picks[len(costs)] = rng.integers(0, len(costs), size=(draws, len(costs)))
        columns.append(_draw(objective, costs, estimates[objective.name], picks[len(costs)], rng))
    return np.stack(columns, axis=1)


def _draw(
    objective: Objective,
    costs: FloatArray,
    known: Estimate,
    picks: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> FloatArray:
    if not np.isfinite(costs).all():
        middles: FloatArray = np.quantile(costs[picks], 0.5, axis=1, method="higher")
        return middles
    error = abs(objective.cost(known.high) - objective.cost(known.low)) / 2 / _Z95
    centre, plain = objective.cost(known.value), float(costs.std()) / np.sqrt(len(costs))
    if len(costs) < _LEAST_REPEATS or plain == 0:
        return centre + error * rng.standard_normal(len(picks))
    drawn: FloatArray = centre + (costs[picks].mean(axis=1) - costs.mean()) * error / plain
    return drawn


def interval(value: float, drawn: FloatArray) -> Interval:
    """The 95 % interval of a figure from its draws: their percentiles, and always around the value.

    Plain percentiles, because they hold what they promise here: reflected ones (the "basic" bootstrap) cover the
    epsilons, which are the largest of many misses, with as little as 86 % (benchmarks/comparison/results.md).
    """
    if not np.isfinite(value) or not np.isfinite(drawn).all() or not len(drawn):
        return Interval(value=value, low=value, high=value)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))
