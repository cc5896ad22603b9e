"""Decides who survives: noise-aware Pareto ranks, crowding, and the choice of a bounded set of survivors.

Rank and crowding (NSGA-II, Deb et al. 2002) up to three objectives, reference directions (NSGA-III, Deb & Jain 2014)
above. Ranks are noise-aware by the dominance of population/dominance.py, so that rank 0 is the front. Ranking is exact
and takes O(size * N): who has many candidates passes a pool of them (`Landscape.pool`).

Axis N: members, M: objectives. Costs are logarithms, to be minimised.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from pymoo.algorithms.moo.nsga3 import ReferenceDirectionSurvival
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
from pymoo.util.ref_dirs import get_reference_directions

from population import dominance
from population.dominance import Points

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_FINITE = 1e3
"""Stands for an infinite cost where pymoo needs finite numbers: e^1000 times worse than 1."""


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
    pool = Points(finite(points.costs_NM), finite(points.low_NM), finite(points.high_NM))
    found = fronts(pool, size)
    ranks = np.full(len(pool), len(found), dtype=np.intp)
    for rank, front in enumerate(found):
        ranks[front] = rank
    chosen = np.arange(len(pool), dtype=np.intp)
    if len(pool) > size:
        many = pool.costs_NM.shape[1] > 3
        chosen = _many_objective(pool.costs_NM, size, rng) if many else _by_crowding(pool.costs_NM, found, size, rng)
    chosen = chosen[np.argsort(ranks[chosen], kind="stable")]
    return chosen, ranks[chosen]


def _by_crowding(costs_NM: FloatArray, found: list[IntArray], size: int, rng: np.random.Generator) -> IntArray:
    """Whole fronts, and of the one that does not fit its loneliest members; ties to finite costs, then by chance."""
    last = found[-1]
    room = size - sum(len(front) for front in found[:-1])
    broken = (costs_NM[last] >= _FINITE).any(axis=1)
    order = np.lexsort((rng.random(len(last)), broken, -crowding(costs_NM[last])))
    return np.concatenate([*found[:-1], last[order[:room]]])


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
