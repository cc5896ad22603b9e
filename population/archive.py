"""Decides what is known about every child: pooled samples, estimates and costs, and which candidates are the front."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

import numpy as np

from population.candidate import Candidate, Child, Failure
from population.dominance import Points
from population.errors import ConfigError, RunError
from population.evaluation import Evaluation, Rejected, Scored, Stage
from population.kernel import Kernel
from population.objectives import FloatArray, ObjectiveSet, objective_samples
from population.rows import IntArray, Rows
from population.statistics import Estimate, estimate

NOISY = "noisy"
"""Flag of an evaluation that others disturbed although it was repeated."""
NOISY_FACTOR = 2.0
"""How many times as wide (log scale) an interval is when every evaluation behind it was disturbed."""


def noise_factor(evaluations: Iterable[Scored]) -> float:
    """How many times as wide the interval of pooled evaluations is: 1 if none was disturbed, in proportion if some."""
    disturbed = [NOISY in evaluation.flags for evaluation in evaluations]
    return 1.0 + (NOISY_FACTOR - 1.0) * sum(disturbed) / len(disturbed)


@dataclass(frozen=True, slots=True)
class _Standing:
    """What the pooled samples of one scored candidate amount to; arrays (M,) are read-only."""

    row: int
    samples: Mapping[str, tuple[float, ...]]
    estimates: Mapping[str, Estimate]
    costs_M: FloatArray
    low_M: FloatArray
    high_M: FloatArray


class Archive:
    """All children that have ended. Grows by `add` and `remeasure`; equal calls in equal order give equal archives.

    A candidate is *scored* while every evaluation of it is `Scored`. A re-measurement that is `Rejected` takes it out
    of `scored` and of the front for good: a server that sometimes fails is not proven accurate.

    Every candidate that is scored at first gets a *row*, in order of arrival, and keeps it. Who must not look at all
    candidates for every child reads `points` by row and follows `changes`; the front itself is kept up to date so.
    """

    def __init__(self, objectives: ObjectiveSet) -> None:
        self.objectives = objectives
        self._children: dict[int, Child] = {}
        self._candidates: dict[str, Candidate] = {}
        self._evaluations: dict[str, list[Evaluation]] = {}
        self._standings: dict[str, _Standing] = {}
        self._trees: dict[str, str] = {}
        self._rows = Rows(len(objectives))
        self._names: list[str] = []
        self._changes: list[int] = []
        self._followed = 0
        self._kernel = Kernel(self._rows)
        self._scored: tuple[str, ...] | None = ()
        self._front: tuple[str, ...] | None = ()

    @property
    def children(self) -> Mapping[int, Child]:
        """Child number → child, in the order in which they ended."""
        return MappingProxyType(self._children)

    def latest(self, count: int) -> list[Child]:
        """The last `count` children, in the order in which they ended."""
        return list(islice(reversed(self._children.values()), count))[::-1]

    @property
    def candidates(self) -> Mapping[str, Candidate]:
        """Id → child that became a commit, scored or not, in the order in which they ended."""
        return MappingProxyType(self._candidates)

    @property
    def trees(self) -> Mapping[str, str]:
        """Tree hash → id of the first child that had it."""
        return MappingProxyType(self._trees)

    @property
    def scored(self) -> tuple[str, ...]:
        """Ids of the scored candidates in the order in which they ended; the seed comes first.

        O(n) after every change; ask `is_scored`, `scored_count` or `youngest` where that counts.
        """
        if self._scored is None:
            self._scored = tuple(self._standings)
        return self._scored

    @property
    def scored_count(self) -> int:
        return len(self._standings)

    def is_scored(self, candidate: str) -> bool:
        return candidate in self._standings

    def youngest(self, count: int) -> list[str]:
        """The last `count` of `scored`, youngest first."""
        return list(islice(reversed(self._standings), count))

    @property
    def front(self) -> tuple[str, ...]:
        """Ids of the front, given measurement noise (`population.dominance`), by ascending total cost."""
        self._follow()
        if self._front is None:
            self._front = tuple(self._names[row] for row in self._kernel.members)
        return self._front

    @property
    def front_rows(self) -> IntArray:
        """Rows of the front, in its order."""
        self._follow()
        return np.array(self._kernel.members, dtype=np.intp)

    @property
    def points(self) -> Points:
        """Costs and intervals (N, M) by row, to be read only; rows of those no longer scored mean nothing."""
        return self._rows.points

    @property
    def rows(self) -> Rows:
        """As `points`, with the order of total costs; to be read only."""
        return self._rows

    def row(self, candidate: str) -> int:
        """The row of a scored candidate."""
        return self._standing(candidate).row

    @property
    def names(self) -> Sequence[str]:
        """Row → candidate id, also of those no longer scored; not to be changed."""
        return self._names

    @property
    def changes(self) -> Sequence[int]:
        """The rows that `add` and `remeasure` gave or changed, in that order; grows only, not to be changed.

        A follower remembers how many it has seen, and asks `is_scored` of the rest.
        """
        return self._changes

    def evaluations(self, candidate: str) -> tuple[Evaluation, ...]:
        """The first evaluation and every re-measurement, in order."""
        return tuple(self._evaluations[candidate])

    def samples(self, candidate: str) -> Mapping[str, tuple[float, ...]]:
        """Objective name → samples pooled over all evaluations of a scored candidate."""
        return self._standing(candidate).samples

    def estimates(self, candidate: str) -> Mapping[str, Estimate]:
        """Objective name → estimate from the pooled samples of a scored candidate."""
        return self._standing(candidate).estimates

    def costs(self, candidate: str) -> FloatArray:
        """Costs (M,) of the central values of a scored candidate; read-only."""
        return self._standing(candidate).costs_M

    def bounds(self, candidate: str) -> tuple[FloatArray, FloatArray]:
        """Optimistic and pessimistic costs, each (M,), of a scored candidate; read-only."""
        standing = self._standing(candidate)
        return standing.low_M, standing.high_M

    def costs_of(self, candidates: Iterable[str]) -> FloatArray:
        """Costs (N, M) of scored candidates, in the given order."""
        rows = [self._standing(candidate).row for candidate in candidates]
        return self._rows.points.costs_NM[np.array(rows, dtype=np.intp)]

    def metrics(self, candidate: str) -> Mapping[str, Estimate]:
        """Estimates of every metric that was measured; those that are no objective take the largest declared noise."""
        pooled: dict[str, tuple[float, ...]] = {}
        for evaluation in self._evaluations[candidate]:
            if isinstance(evaluation, Scored):
                for name, values in evaluation.samples.items():
                    pooled[name] = pooled.get(name, ()) + tuple(values)
        noise = {o.name: o.relative_noise for o in self.objectives}
        default = max(noise.values())
        found = {
            n: estimate(v, noise.get(n.partition("@")[0], default)) for n, v in pooled.items() if v and min(v) >= 0
        }
        return {**found, **self._standing(candidate).estimates} if candidate in self._standings else found

    def admit(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation itself, or a `Rejected` in place of a `Scored` that lacks a possible value of an objective.

        Ask before an evaluation goes into the ledger; `add` and `remeasure` raise where this would reject.
        """
        if isinstance(evaluation, Rejected):
            return evaluation
        try:
            _require_numbers(evaluation)
            for objective in self.objectives:
                values = objective_samples(objective, evaluation.samples)
                if any(not v >= 0 or objective.cost(v) == -math.inf for v in values):
                    raise ConfigError(f"objective '{objective.name}' got {list(values)}, which no server can reach")
        except ConfigError as error:
            return Rejected(
                stage=Stage.BENCHMARK,
                reason=str(error),
                tier=evaluation.tier,
                gaps=evaluation.gaps,
                stage_s=dict(evaluation.stage_s),
            )
        return evaluation

    def add(self, child: Child) -> None:
        """A child ended.

        Raises:
            RunError: a child of this number has ended before, or its evaluation misses an objective.
        """
        number = child.proposal.number
        if number in self._children:
            raise RunError(f"child {number} ended twice; each child ends exactly once")
        self._require_admissible(child.proposal.id, child.evaluation)
        self._children[number] = child
        if isinstance(child, Failure):
            return
        self._candidates[child.id] = child
        self._trees.setdefault(child.tree, child.id)
        self._evaluations[child.id] = [child.evaluation]
        if isinstance(child.evaluation, Scored):
            self._names.append(child.id)
            self._weigh(child.id, None)

    def remeasure(self, candidate: str, evaluation: Evaluation) -> None:
        """Pool one more evaluation of a candidate that was scored at first.

        Raises:
            RunError: no such candidate was ever scored, or the evaluation misses an objective.
        """
        first = self._evaluations.get(candidate, [None])[0]
        if not isinstance(first, Scored):
            raise RunError(f"{candidate} cannot be re-measured: expected a candidate that was scored")
        self._require_admissible(candidate, evaluation)
        self._evaluations[candidate].append(evaluation)
        standing = self._standings.get(candidate)
        if standing is None:
            return
        if isinstance(evaluation, Rejected):
            del self._standings[candidate]
            self._changes.append(standing.row)
            self._scored = None
        else:
            self._weigh(candidate, standing.row)

    def _standing(self, candidate: str) -> _Standing:
        try:
            return self._standings[candidate]
        except KeyError:
            known = "was rejected" if candidate in self._candidates else "is not in the archive"
            raise RunError(f"{candidate} has no measurements: expected a scored candidate, but it {known}") from None

    def _require_admissible(self, candidate: str, evaluation: Evaluation) -> None:
        admitted = self.admit(evaluation)
        if admitted is not evaluation and isinstance(admitted, Rejected):
            raise RunError(f"evaluation of {candidate}: {admitted.reason}")

    def _weigh(self, candidate: str, row: int | None) -> None:
        """Pool all evaluations of a scored candidate, in its row; None for a new one."""
        scored = [e for e in self._evaluations[candidate] if isinstance(e, Scored)]
        samples = {o.name: tuple(v for e in scored for v in objective_samples(o, e.samples)) for o in self.objectives}
        wider = noise_factor(scored)
        estimates = {o.name: estimate(samples[o.name], o.relative_noise, wider) for o in self.objectives}
        costs, (low, high) = self.objectives.costs(estimates), self.objectives.cost_bounds(estimates)
        for array in (costs, low, high):
            array.setflags(write=False)
        if row is None:
            row, self._scored = self._rows.append(costs, low, high), None
        else:
            self._rows.change(row, costs, low, high)
        self._changes.append(row)
        self._standings[candidate] = _Standing(
            row, MappingProxyType(samples), MappingProxyType(estimates), costs, low, high
        )

    def _follow(self) -> None:
        """Bring the front up to date, so that only what changed is looked at."""
        if self._followed == len(self._changes):
            return
        changed = dict.fromkeys(self._changes[self._followed :])
        self._followed = len(self._changes)
        before = list(self._kernel.members)
        self._kernel.update(changed, self._still_scored(changed))
        if before != self._kernel.members:
            self._front = None

    def _still_scored(self, rows: Iterable[int]) -> Iterator[int]:
        return (row for row in rows if self._names[row] in self._standings)


def _require_numbers(evaluation: Scored) -> None:
    figures = {**evaluation.samples, "audit": tuple(evaluation.audit.values())}
    wrong = sorted(name for name, values in figures.items() if any(not v >= 0 for v in values))
    if wrong:
        raise ConfigError(f"metrics must be numbers >= 0, got NaN or negative ones in {', '.join(wrong)}")
