"""Decides who becomes a parent: the front by crowding, or the survivors by a softmax over noise-aware rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search.gaps import Gap, widest
from search.landscape import Landscape
from search.survival import crowding, finite, survivors

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Pool:
    """Whom a proposal may descend from; as rows of the archive."""

    front_F: IntArray
    crowding_F: FloatArray
    survivors_S: IntArray
    """Best rank first."""
    ranks_S: IntArray
    gap: Gap | None
    """Its ends are rows, too."""


def gather(land: Landscape, population_size: int, rng: np.random.Generator) -> Pool:
    """Front, survivors and widest gap of the landscape."""
    front, pool = land.front_F, land.pool
    chosen, ranks = survivors(land.points[pool], population_size, rng)
    hole = None
    if len(front):
        noise_M = np.median(finite(land.points.high_NM[front]) - finite(land.points.low_NM[front]), axis=0)
        hole = widest(land.points.costs_NM[front], noise_M)
    if hole is not None:
        hole = Gap(
            better=int(front[hole.better]), worse=int(front[hole.worse]), objective=hole.objective, width=hole.width
        )
    return Pool(front, crowding(land.points.costs_NM[front]), pool[chosen], ranks, hole)


def by_crowding(pool: Pool, rng: np.random.Generator) -> int:
    """Binary tournament on the front: the lonelier of two wins (Deb et al. 2002)."""
    one, two = rng.integers(len(pool.front_F), size=2)
    return int(pool.front_F[one if pool.crowding_F[one] >= pool.crowding_F[two] else two])


def by_rank(pool: Pool, temperature: float, rng: np.random.Generator) -> int:
    """Softmax over survivors: weight exp(-rank / temperature); 0 takes the best rank only."""
    ranks = pool.ranks_S.astype(float)
    weights = np.exp(-(ranks - ranks.min()) / temperature) if temperature > 0 else (ranks == ranks.min()).astype(float)
    return int(rng.choice(pool.survivors_S, p=weights / weights.sum()))


def inspirations(
    land: Landscape, pool: Pool, parents: Sequence[str], counts: tuple[int, int], rng: np.random.Generator
) -> tuple[str, ...]:
    """Members to learn from: `counts[0]` of the front, then `counts[1]` others made of the most different parts."""
    front = [land.names[i] for i in pool.front_F if land.names[i] not in parents]
    order = rng.permutation(len(front))
    chosen = [front[i] for i in order[: counts[0]]]
    mine = land.pedigree(parents[0])
    others = [land.names[i] for i in pool.survivors_S if land.names[i] not in (*parents, *chosen)]
    others.sort(key=lambda member: -len(mine.recipes ^ land.pedigree(member).recipes))
    return tuple(chosen + others[: counts[1]])
