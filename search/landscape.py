"""Decides how a policy sees the archive: costs, pedigrees, outcomes and what has been tried, as plain numbers.

A landscape is a pure function of archive, recipes and pending work. What it is made of (search/history.py) is
remembered per archive object and extended by what changed, so that a look costs the same after a hundred children and
after a hundred thousand. A policy sees at most `FRONT_LIMIT` members of the front and `POOL_LIMIT` candidates in all;
as long as there are no more, it sees them all.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from population.archive import Archive
from population.candidate import Proposal
from population.dominance import Points
from population.genome import Genome, Knob
from search.history import History, Key, Point, Tally, Tried
from search.pedigree import Descent, Pedigree

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

POOL_LIMIT = 256
"""Candidates among which survivors are chosen."""
FRONT_LIMIT = 128
"""Members of the front that may become parents at one proposal."""


@dataclass(frozen=True)
class Landscape:
    """The archive in numbers. Axis N: rows of the archive, M: objectives."""

    archive: Archive
    descent: Descent
    history: History
    points: Points
    """Costs and intervals (N, M) by row; rows of those no longer scored mean nothing."""
    front_F: IntArray
    """Rows of the front's members, ascending; a spread of `FRONT_LIMIT` of them if there are more."""

    @property
    def names(self) -> Sequence[str]:
        """Row → candidate id."""
        return self.archive.names

    @cached_property
    def first(self) -> int:
        """Row of the first scored member (the seed)."""
        return self.history.order.first()

    @cached_property
    def reference_M(self) -> FloatArray:
        """Reference point of the hypervolume: the seed."""
        reference: FloatArray = np.nan_to_num(self.points.costs_NM[self.first], posinf=1e3)
        return reference

    @cached_property
    def pool(self) -> IntArray:
        """Rows, ascending, among which survivors are chosen: `front_F`, then the best by total cost.

        So it holds every scored candidate as long as there are no more than `POOL_LIMIT`. Beyond, whoever is left out
        is neither shown of the front nor better on the whole than anybody in the pool who is not of the front.
        """
        found = dict.fromkeys(self.front_F.tolist())
        for row in self.history.order.best(POOL_LIMIT + len(found)):
            if len(found) >= POOL_LIMIT:
                break
            found[row] = None
        return np.array(sorted(found), dtype=np.intp)

    def youngest(self, count: int) -> list[int]:
        """Rows of the last `count` scored members, youngest first."""
        return [self.archive.row(member) for member in self.archive.youngest(count)]

    def genome(self, member: str) -> Genome:
        return self.archive.candidates[member].genome

    def knobs(self, member: str) -> Mapping[str, Knob]:
        """`component.knob` → knob of a candidate."""
        return self.history.part(member).knobs

    def at(self, member: str) -> Point:
        """Where a candidate lies for the surrogate."""
        return self.history.part(member).at

    def pedigree(self, member: str) -> Pedigree:
        return self.history.part(member).pedigree

    @property
    def outcomes(self) -> Mapping[str, Tally]:
        """Recipe name, or operator for the others → what became of the children that ended."""
        return self.history.outcomes

    def taken(self, pending: Sequence[Proposal]) -> Container[Key]:
        """What may not be proposed: known results and those in flight."""
        self.history.fly(pending)
        return Tried(self.history)


_memory: WeakKeyDictionary[Archive, History] = WeakKeyDictionary()


def survey(archive: Archive, descent: Descent) -> Landscape:
    """The landscape of the archive as it is now."""
    history = _memory.get(archive)
    if history is None or history.descent is not descent:
        history = _memory[archive] = History(descent)
    history.follow(archive)
    points = archive.points
    return Landscape(
        archive, descent, history, points, np.sort(spread(points.costs_NM, archive.front_rows, FRONT_LIMIT))
    )


def spread(costs_NM: FloatArray, rows: IntArray, limit: int) -> IntArray:
    """At most `limit` of the rows: every one at equal steps along one objective after the other, its ends included."""
    if len(rows) <= limit:
        return rows
    objectives = costs_NM.shape[1]
    steps = np.linspace(0, len(rows) - 1, max(2, limit // objectives)).round().astype(np.intp)
    chosen = [rows[np.argsort(costs_NM[rows, m], kind="stable")[steps]] for m in range(objectives)]
    return np.array(list(dict.fromkeys(np.concatenate(chosen).tolist()))[:limit], dtype=np.intp)
