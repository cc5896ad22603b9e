"""Decides how much measurement a candidate deserves: the bar it must clear, and which member to measure once more.

Racing after Maron & Moore (1994) and irace (López-Ibáñez et al. 2016): stop measuring what cannot win any more, and
spend what is left where the answer is least certain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from population import dominance
from population.archive import Archive
from population.dominance import Points
from search.survival import FloatArray, finite


def bar(archive: Archive) -> tuple[tuple[float, ...], ...]:
    """Pessimistic costs of the front's members: a child whose optimistic costs are dominated by one cannot win."""
    rows = [tuple(float(c) for c in archive.bounds(member)[1]) for member in archive.front]
    return tuple(row for row in rows if np.isfinite(row).all())


def most_doubtful(archive: Archive, pending: Sequence[str], max_repeats: int) -> str | None:
    """The member or contender that is least sure in relation to its margins; None when all are sure enough.

    Doubt of a member in one objective = half width of its interval over the distance to its nearest front neighbour in
    that objective: above 1 the two cannot be told apart. Members with `max_repeats` samples are left alone.
    """
    wanted = (*archive.front, *contenders(archive))
    members = [m for m in wanted if m not in pending and _repeats(archive, m) < max_repeats]
    if not members:
        return None
    front_NM = np.array([archive.costs(m) for m in archive.front])
    doubts = [(_doubt(archive, m, front_NM), -_repeats(archive, m), m) for m in members]
    fewest = min(_repeats(archive, m) for m in members)
    starved = [d for d in doubts if -d[1] == fewest]
    return max(starved)[2]


def contenders(archive: Archive) -> tuple[str, ...]:
    """Who would be on the front if every interval were half as wide, and is not: more measurements may prove them."""
    ids = archive.scored
    if not ids:
        return ()
    costs_NM = archive.costs_of(ids)
    bounds = [archive.bounds(i) for i in ids]
    low_NM, high_NM = np.array([low for low, _ in bounds]), np.array([high for _, high in bounds])
    with np.errstate(invalid="ignore"):
        halved = Points(costs_NM, (costs_NM + low_NM) / 2, (costs_NM + high_NM) / 2)
    front = set(archive.front)
    return tuple(ids[row] for row in dominance.front(halved) if ids[row] not in front)


def _repeats(archive: Archive, member: str) -> int:
    return min((e.n for name, e in archive.estimates(member).items() if name in archive.objectives.names), default=0)


def _doubt(archive: Archive, member: str, front_NM: FloatArray) -> float:
    low, high = archive.bounds(member)
    half = (finite(high) - finite(low)) / 2
    distances = np.abs(finite(front_NM) - finite(archive.costs(member)))
    others = distances[(distances > 0).any(axis=1)]
    margin = others.min(axis=0, initial=1.0) if len(others) else np.ones(len(half))
    return float((half / np.maximum(margin, 1e-3)).max())
