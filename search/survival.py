"""Decides who survives: noise-aware Pareto ranks, crowding, and the choice of a bounded set of survivors.

Rank and crowding (NSGA-II, Deb et al. 2002) up to three objectives, reference directions (NSGA-III, Deb & Jain 2014)
above, both by pymoo. Ranks are noise-aware by the dominance of population/dominance.py, so that rank 0 is the front.

Axis N: members, M: objectives. Costs are logarithms, to be minimised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pymoo.algorithms.moo.nsga3 import ReferenceDirectionSurvival
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
from pymoo.util.ref_dirs import get_reference_directions

from population import dominance
from population.dominance import Points

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_EXACT_LIMIT = 1500
"""Members above which ranks are first cut by central costs: the noise-aware one is slow there."""
_FINITE = 1e3
"""Stands for an infinite cost where pymoo needs finite numbers: e^1000 times worse than 1."""


@dataclass(frozen=True, slots=True)
class NoiseAwareSorting:
    """Non-dominated sorting by population/dominance.py, in the shape that pymoo's survival operators call."""

    points: Points

    def do(self, F: FloatArray, n_stop_if_ranked: int | None = None, **_: object) -> list[IntArray]:
        """Fronts of indices, best first, until `n_stop_if_ranked` are ranked."""
        return fronts(self.points, len(F) if n_stop_if_ranked is None else n_stop_if_ranked)


def fronts(points: Points, enough: int) -> list[IntArray]:
    """The front, the front of what is left without it, …, until `enough` members are in one."""
    left, found, ranked = np.arange(len(points), dtype=np.intp), [], 0
    while len(left) and ranked < enough:
        front = np.sort(left[dominance.front(points[left])])
        found.append(front)
        ranked += len(front)
        left = np.setdiff1d(left, front, assume_unique=True)
    return found


def crowding(costs_NM: FloatArray) -> FloatArray:
    """Crowding distance (N,) of NSGA-II; inf at the ends of every objective."""
    if len(costs_NM) <= 2:
        return np.full(len(costs_NM), np.inf)
    distance: FloatArray = calc_crowding_distance(finite(costs_NM))
    return distance


def survivors(points: Points, size: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Indices of at most `size` survivors, best rank first, and their noise-aware ranks."""
    kept = _preselect(points.costs_NM, max(4 * size, _EXACT_LIMIT))
    pool = Points(finite(points.costs_NM[kept]), finite(points.low_NM[kept]), finite(points.high_NM[kept]))
    ranks = np.full(len(pool), len(pool), dtype=np.intp)
    for rank, front in enumerate(fronts(pool, size)):
        ranks[front] = rank
    chosen = np.arange(len(pool), dtype=np.intp)
    if len(pool) > size:
        chosen = _many_objective(pool.costs_NM, size, rng) if pool.costs_NM.shape[1] > 3 else _ranked(pool, size, rng)
        ranks = np.minimum(ranks, ranks[ranks < len(pool)].max(initial=0) + 1)
    chosen = chosen[np.argsort(ranks[chosen], kind="stable")]
    return kept[chosen], ranks[chosen]


def _preselect(costs_NM: FloatArray, limit: int) -> IntArray:
    if len(costs_NM) <= limit:
        return np.arange(len(costs_NM), dtype=np.intp)
    fronts = NonDominatedSorting().do(finite(costs_NM), n_stop_if_ranked=limit)
    return np.sort(np.concatenate(fronts)[: 2 * limit]).astype(np.intp)


def _ranked(points: Points, size: int, rng: np.random.Generator) -> IntArray:
    pool = Population.new(F=points.costs_NM, index=np.arange(len(points)))
    operator = RankAndCrowding(nds=NoiseAwareSorting(points))
    kept = operator.do(Problem(n_obj=points.costs_NM.shape[1]), pool, n_survive=size, random_state=rng)
    return np.asarray(kept.get("index"), dtype=np.intp)


def _many_objective(costs: FloatArray, size: int, rng: np.random.Generator) -> IntArray:
    objectives = costs.shape[1]
    partitions = next(p for p in range(1, size + 2) if math.comb(p + objectives - 1, objectives - 1) >= size)
    directions = get_reference_directions("das-dennis", objectives, n_partitions=partitions)
    pool = Population.new(F=costs, index=np.arange(len(costs)))
    operator = ReferenceDirectionSurvival(directions)
    kept = operator.do(Problem(n_obj=costs.shape[1]), pool, n_survive=size, random_state=rng)
    return np.asarray(kept.get("index"), dtype=np.intp)


def finite(costs: FloatArray) -> FloatArray:
    """Costs with infinities clipped, for arithmetic that cannot bear them."""
    return np.clip(costs, -_FINITE, _FINITE)
