"""Decides how much measurement a candidate deserves: the bar it must clear, and which member to measure once more.

Racing after Maron & Moore (1994) and irace (López-Ibáñez et al. 2016): stop measuring what cannot win any more, and
spend what is left where the answer is least certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np

from population.archive import Archive
from population.kernel import Kernel
from population.rows import IntArray, Rows
from search.survival import FloatArray, finite


def bar(archive: Archive) -> tuple[tuple[float, ...], ...]:
    """Pessimistic costs of the front's members: a child whose optimistic costs are dominated by one cannot win."""
    high_FM = archive.points.high_NM[archive.front_rows]
    return tuple(tuple(row) for row in high_FM[np.isfinite(high_FM).all(axis=1)].tolist())


def most_doubtful(archive: Archive, pending: Sequence[str], max_repeats: int) -> str | None:
    """The member or contender that is least sure in relation to its margins; None when all are sure enough.

    Doubt of a member in one objective = half width of its interval over the distance to its nearest front neighbour in
    that objective: above 1 the two cannot be told apart. Of those with the fewest samples, the most doubtful; members
    with `max_repeats` samples are left alone.
    """
    halved = _halved(archive)
    rows = np.concatenate([archive.front_rows, _contending(archive, halved)])
    if pending:
        rows = rows[~np.isin(rows, [archive.row(member) for member in pending if archive.is_scored(member)])]
    repeats = halved.repeats[rows]
    fewest = repeats.min(initial=max_repeats)
    if fewest >= max_repeats:
        return None
    starved = rows[repeats == fewest]
    doubts = _doubts(archive, starved)
    most = starved[doubts == doubts.max()].tolist()
    return str(max(archive.names[row] for row in most))


def contenders(archive: Archive) -> tuple[str, ...]:
    """Who would be on the front if every interval were half as wide, and is not: more measurements may prove them."""
    return tuple(archive.names[row] for row in _contending(archive, _halved(archive)))


def _contending(archive: Archive, halved: _Halved) -> IntArray:
    rows = np.array(halved.front, dtype=np.intp)
    return rows[~np.isin(rows, archive.front_rows)]


def _halved(archive: Archive) -> _Halved:
    """What is remembered of an archive, as it is now."""
    found = _memory.get(archive)
    if found is None:
        found = _memory[archive] = _Halved(len(archive.objectives))
    found.follow(archive)
    return found


class _Halved:
    """The front of an archive if every interval were half as wide, kept up to date as the archive's own is; and how
    often each row was measured."""

    def __init__(self, objectives: int) -> None:
        self._rows = Rows(objectives)
        self._kernel = Kernel(self._rows)
        self._followed = 0
        self._repeats = np.zeros(16, dtype=np.intp)

    @property
    def front(self) -> Sequence[int]:
        """Rows of that front."""
        return self._kernel.members

    @property
    def repeats(self) -> IntArray:
        """By row: samples of the objective that has the fewest; of rows that are no longer scored, what they had."""
        return self._repeats[: len(self._rows)]

    def follow(self, archive: Archive) -> None:
        """Take in what has changed."""
        changed = sorted(set(archive.changes[self._followed :]))
        self._followed = len(archive.changes)
        scored = [row for row in changed if archive.is_scored(archive.names[row])]
        for row in changed:
            self._halve(row, archive)
        while len(self._repeats) < len(self._rows):
            self._repeats = np.concatenate([self._repeats, np.zeros_like(self._repeats)])
        for row in scored:
            self._repeats[row] = _repeats(archive, archive.names[row])
        self._kernel.update(changed, scored)

    def _halve(self, row: int, archive: Archive) -> None:
        points = archive.points
        costs_M = points.costs_NM[row]
        with np.errstate(invalid="ignore"):
            low_M, high_M = (costs_M + points.low_NM[row]) / 2, (costs_M + points.high_NM[row]) / 2
        if row == len(self._rows):
            self._rows.append(costs_M, low_M, high_M)
        else:
            self._rows.change(row, costs_M, low_M, high_M)


_memory: WeakKeyDictionary[Archive, _Halved] = WeakKeyDictionary()


def _repeats(archive: Archive, member: str) -> int:
    return min((e.n for name, e in archive.estimates(member).items() if name in archive.objectives.names), default=0)


def _doubts(archive: Archive, rows: IntArray) -> FloatArray:
    """Doubt of every row; `most_doubtful` has the definition."""
    points, front = archive.points, finite(archive.points.costs_NM[archive.front_rows])
    costs = finite(points.costs_NM[rows])
    half = (finite(points.high_NM[rows]) - finite(points.low_NM[rows])) / 2
    margins = np.stack([_nearest(costs, front, objective) for objective in range(front.shape[1])], axis=1)
    found: FloatArray = (half / np.maximum(margins, 1e-3)).max(axis=1)
    return found


def _nearest(costs_RM: FloatArray, front_FM: FloatArray, objective: int) -> FloatArray:
    """Distance (R,) in one objective to the nearest member that is not the same point, at most 1.

    Members are distinct points, so only one of the nearest can be the same; if it hides among more than two that tie
    in this objective, the distance is 0 anyway.
    """
    ranked_FM = front_FM[np.argsort(front_FM[:, objective], kind="stable")]
    at = np.searchsorted(ranked_FM[:, objective], costs_RM[:, objective])
    near = at[:, None] + np.arange(-1, 3)
    inside = (near >= 0) & (near < len(ranked_FM))
    near = np.clip(near, 0, len(ranked_FM) - 1)
    same = (ranked_FM[near] == costs_RM[:, None, :]).all(axis=2)
    distances = np.abs(ranked_FM[near, objective] - costs_RM[:, None, objective])
    nearest: FloatArray = np.where(inside & ~same, distances, 1.0).min(axis=1, initial=1.0)
    return nearest
