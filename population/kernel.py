"""Decides which points are the front while points come, change and go: the kernel of `dominance`, kept up to date.

A newcomer costs one comparison with the front, O(front * M), whatever the number of points. That needs a reason for
every point outside, which is kept: its *keeper*.

    y hides x           in every objective, y's cost and pessimistic end are those of x, or both lower by `SLACK`;
                        and y precedes x

    A hidden point is outside whether or not its hider is inside: y dominates it, and so does whatever dominates y (the
    margin of a difference grows no faster than the pessimistic end moves out; `SLACK` is far above rounding). So the
    kernel of all points is the kernel of those that nothing hides.

Everything outside is either hidden by some point, which holds until that point changes or goes, or dominated by a
member, which holds while it is one. As the kernel of an acyclic relation is unique, a state in which no member
dominates another and everything outside has a keeper is the kernel, in whatever order it was reached.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np

from population.dominance import BoolArray, FloatArray, Points, beyond_margin
from population.rows import IntArray, Key, Rows

SLACK = 1e-9
"""Difference of costs (logarithms) that rounding cannot make: costs are below 1e3, so an ulp is below 2e-13."""
_NOBODY = -1
_CHUNK = 200_000
"""Comparisons of one objective made at once."""
_CROWD = 128
"""How many rows one may keep outside before some of them are kept by others of them."""
_PIVOTS = 32
"""Of a crowd, the first, by whom the others may be hidden."""


class Kernel:
    """The kernel of some of the rows; see the module. `crowd`: see `_CROWD`."""

    def __init__(self, rows: Rows, crowd: int = _CROWD) -> None:
        self._rows = rows
        self._crowd = crowd
        self._limits: dict[int, int] = {}
        """Row → how many it may keep, where that is more than `crowd`: those that nobody of them hides."""
        self._keys: list[Key] = []
        """Of the members, ascending."""
        self._members: list[int] = []
        self._key_of: dict[int, Key] = {}
        self._keeper = array("q")
        """By row: who keeps it outside, `_NOBODY` for the rest."""
        self._under: dict[int, set[int]] = {}
        """Member → whom it dominates and does not hide."""
        self._hidden: dict[int, array[int]] = {}
        """Row, a member or not → whom it hides, among others whom it no longer keeps."""
        self._seen: Points | None = None

    @property
    def members(self) -> Sequence[int]:
        """Rows of the kernel in the order of `precedes`; not to be changed."""
        return self._members

    def update(self, gone: Iterable[int], come: Iterable[int]) -> None:
        """Rows that are gone (or whose values are others now) leave, then rows come; a changed row is in both."""
        leaving, coming = list(gone), sorted(come)
        self._keeper.extend([_NOBODY] * (len(self._rows) - len(self._keeper)))
        here = set(coming)
        former = [(row, self._leave(row, row in here)) for row in leaving]
        orphans = {row for _, left in former for row in left}.difference(leaving)
        for row in orphans:
            self._keeper[row] = _NOBODY
        self._settle(np.array(coming, dtype=np.intp))
        for row, left in former:  # most of what a re-measured member kept, it still keeps
            if row in here and (kept := orphans & left):
                orphans -= kept.difference(self._attach_to(row, np.array(sorted(kept), dtype=np.intp)).tolist())
        self._settle(np.array(sorted(orphans), dtype=np.intp))

    def _leave(self, row: int, changed: bool) -> set[int]:
        """Forget the row; whom it keeps no more. If it was `changed`, it goes on hiding whom it hides as it is now."""
        if row in self._key_of:
            self._resign(row)
        else:
            self._under.get(self._keeper[row], set()).discard(row)
        self._keeper[row] = _NOBODY
        self._limits.pop(row, None)
        left = self._under.pop(row, set())
        named = np.array(self._hidden.pop(row, array("q")), dtype=np.intp)
        mine = named[np.frombuffer(self._keeper, dtype=np.int64)[named] == row]
        if changed and len(mine):
            points = self._rows.points
            still = self._rows.later(mine, row) & _hides(points[mine], points[np.array([row])])
            self._hidden[row] = array("q", mine[still].tolist())
            mine = mine[~still]
        return left.union(mine.tolist())

    def _settle(self, fresh: IntArray) -> None:
        """Give every row of `fresh` a keeper or a seat; whoever enters may unseat others, who are settled in turn.

        Rows enter in the order of `precedes`, and a row unseats only later ones: each enters at most once.
        """
        waiting = np.empty(0, dtype=np.intp)
        while len(fresh) or len(waiting):
            if len(fresh):
                waiting = np.sort(np.concatenate([waiting, self._attach_to_any(fresh)]))
                waiting = waiting[self._ranking(waiting)]
            if not len(waiting):
                return
            first = int(waiting[0])
            unseated = self._enter(first)
            orphans = {row for member in unseated for row in self._under.pop(member, ())}
            for row in orphans:
                self._keeper[row] = _NOBODY
            waiting = self._attach_to(first, waiting[1:])
            fresh = self._attach_to(first, np.array(sorted({*orphans, *unseated}), dtype=np.intp))

    def _ranking(self, rows: IntArray) -> IntArray:
        keys = self._rows.keys(rows)
        return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.intp)

    def _enter(self, row: int) -> list[int]:
        """Seat a row that no member dominates; the members that it unseats."""
        (key,) = self._rows.keys(np.array([row]))
        at = bisect_left(self._keys, key)
        later = np.array(self._members[at:], dtype=np.intp)
        points = self._rows.points
        loses = ~_better(points[later], points[np.array([row])]).any(axis=1)
        unseated: list[int] = later[loses].tolist()
        for member in unseated:
            self._resign(member)
        self._keys.insert(at, key)
        self._members.insert(at, row)
        self._key_of[row], self._seen = key, None
        return unseated

    def _resign(self, member: int) -> None:
        at = bisect_left(self._keys, self._key_of.pop(member))
        del self._keys[at], self._members[at]
        self._seen = None

    def _attach_to_any(self, rows: IntArray) -> IntArray:
        """Rows that no member dominates; the others are attached, to one that hides them if there is any."""
        if not self._members:
            return rows
        if self._seen is None:
            self._seen = self._rows.points[np.array(self._members, dtype=np.intp)]
        size, left = max(1, _CHUNK // len(self._members)), []
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            ahead = np.array([bisect_left(self._keys, key) for key in self._rows.keys(some)])
            earlier = np.arange(len(self._members)) < ahead[:, None]
            mine = self._rows.points[some]
            hides = earlier & _hides(_rows_by_columns(mine), self._seen)
            keeps = hides | (earlier & ~_better(_rows_by_columns(mine), self._seen).any(axis=-1))
            hidden: BoolArray = np.asarray(hides.any(axis=1), dtype=np.bool_)
            keeper: IntArray = np.where(hidden, hides.argmax(axis=1), keeps.argmax(axis=1))
            kept: BoolArray = np.asarray(keeps.any(axis=1), dtype=np.bool_)
            for i in np.flatnonzero(kept).tolist():
                self._attach(int(some[i]), self._members[keeper[i]], bool(hidden[i]))
            left.append(some[~kept])
        return np.concatenate(left) if left else rows

    def _attach_to(self, row: int, others: IntArray) -> IntArray:
        """Attach what comes later in the order and is hidden by the row, or dominated if it is a member; the rest."""
        if not len(others):
            return others
        points = self._rows.points
        one, many = points[np.array([row])], points[others]
        later = self._rows.later(others, row)
        hides = later & _hides(many, one)
        keeps = hides | (later & ~_better(many, one).any(axis=1)) if row in self._key_of else hides
        for other, hidden in zip(others[keeps].tolist(), hides[keeps].tolist(), strict=True):
            self._attach(other, row, hidden)
        return others[~keeps]

    def _attach(self, row: int, keeper: int, hidden: bool) -> None:
        self._keeper[row] = keeper
        if hidden:
            self._hidden.setdefault(keeper, array("q")).append(row)
        else:
            self._under.setdefault(keeper, set()).add(row)
        size = len(self._hidden.get(keeper, ())) + len(self._under.get(keeper, ()))
        if size > self._limits.get(keeper, self._crowd):
            self._thin(keeper)

    def _thin(self, keeper: int) -> None:
        """Of those whom the row keeps, some hide others: let them keep those."""
        named, under = np.array(self._hidden.pop(keeper, array("q")), dtype=np.intp), self._under.get(keeper, set())
        hidden = named[np.frombuffer(self._keeper, dtype=np.int64)[named] == keeper]
        # A row that was hidden, changed and came under the same keeper is in both.
        kept = np.unique(np.concatenate([hidden, np.array(list(under), dtype=np.intp)]))
        kept, points = kept[self._ranking(kept)], self._rows.points
        pivots = kept[:_PIVOTS]
        hides = _hides(_rows_by_columns(points[kept]), points[pivots])
        hides &= np.arange(len(pivots)) < np.arange(len(kept))[:, None]
        moved: BoolArray = np.asarray(hides.any(axis=1), dtype=np.bool_)
        self._hidden[keeper] = array("q", [row for row in kept[~moved].tolist() if row not in under])
        self._limits[keeper] = max(self._crowd, 2 * int((~moved).sum()))
        under.difference_update(kept[moved].tolist())
        for row, pivot in zip(kept[moved].tolist(), pivots[hides[moved].argmax(axis=1)].tolist(), strict=True):
            self._attach(row, pivot, True)


def _rows_by_columns(points: Points) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(N, 1, M), to be compared with (K, M)."""
    return points.costs_NM[:, None], points.low_NM[:, None], points.high_NM[:, None]


def _better(challengers: Points | tuple[FloatArray, FloatArray, FloatArray], against: Points) -> BoolArray:
    costs, high = _of(challengers)
    return beyond_margin(costs, high, against.low_NM, against.costs_NM)


def _hides(hidden: Points | tuple[FloatArray, FloatArray, FloatArray], by: Points) -> BoolArray:
    """Whether `by` hides, given that it precedes."""
    costs, high = _of(hidden)
    with np.errstate(invalid="ignore"):
        lower = (costs - by.costs_NM >= SLACK) & (high - by.high_NM >= SLACK)
    same = (costs == by.costs_NM) & (high == by.high_NM)
    found: BoolArray = (lower | same).all(axis=-1)
    return found


def _of(points: Points | tuple[FloatArray, FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
    return (points.costs_NM, points.high_NM) if isinstance(points, Points) else (points[0], points[2])
