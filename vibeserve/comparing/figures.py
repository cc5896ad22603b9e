"""Decides which figures are computed of fronts that are compared, and how sure each of them is.

Axes: R fronts, N members, M objectives, D draws of what might as well have been measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from population.errors import RunError
from population.objectives import Objective
from search.comparison import (
    INDICATORS,
    Scale,
    bootstrap,
    contributions,
    coverage,
    coverage_of_draws,
    finite,
    multiplicative_epsilon,
    qualities,
    shared_scale,
)
from search.ranksum import NOT_SHOWN
from search.resampling import Interval, draw_costs, interval
from vibeserve.comparing.contenders import Contender, Member

FloatArray = npt.NDArray[np.float64]

DRAWS = 1000
_RNG_SEED = 20261121
"""Fixed, so that the same runs always compare with the same result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best value of one objective on a front."""

    member: str
    value: Interval
    gain: Interval | None
    """How many times better than the first contender's best; None for the first itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One front against the first."""

    key: str
    against: str
    hypervolume: Interval
    """Its hypervolume minus the other's."""
    epsilon: Interval
    """The factor by which it misses the other's worst-covered member; 1 or less: it covers all of them."""
    epsilon_back: Interval
    """The factor by which the other misses it."""

    @property
    def verdict(self) -> str:
        """`better` or `worse` only where the interval says so."""
        if not self.hypervolume.excludes(0):
            return NOT_SHOWN
        return "better" if self.hypervolume.value > 0 else "worse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fronts:
    """The fronts of the contenders as costs, in their order."""

    keys: tuple[str, ...]
    contenders: tuple[Contender, ...]
    objectives: tuple[Objective, ...]
    scale: Scale
    costs: tuple[FloatArray, ...]
    """(N, M) of each front."""
    drawn: tuple[FloatArray, ...]
    """(D, N, M) of each front."""

    @classmethod
    def of(
        cls,
        contenders: Mapping[str, Contender],
        objectives: Sequence[Objective],
        others: Sequence[Member],
    ) -> Fronts:
        """`contenders` by their keys; the shared scale takes in `others`, which are shown beside them.

        Raises:
            RunError: no member of any front is finite in every objective.
        """
        rng = np.random.default_rng(_RNG_SEED)
        costs = tuple(contender.costs(objectives) for contender in contenders.values())
        beside = np.array([[o.cost(m.estimates[o.name].value) for o in objectives] for m in others])
        sets = [*costs, *([beside] if others else [])]
        if not any(len(finite(points)) for points in sets):
            names = ", ".join(o.name for o in objectives)
            raise RunError(f"nothing can be compared: no server has a finite value in all of {names}")
        return cls(
            keys=tuple(contenders),
            contenders=tuple(contenders.values()),
            objectives=tuple(objectives),
            scale=shared_scale(sets),
            costs=costs,
            drawn=tuple(_draw(contender, objectives, rng) for contender in contenders.values()),
        )

    def qualities(self) -> tuple[list[dict[str, Interval]], list[Interval]]:
        """The indicators of each front by name, and its hypervolume minus the first one's."""
        values = qualities(self.costs, self.scale)
        spread = bootstrap(self.drawn, lambda fronts: qualities(fronts, self.scale))
        fronts = range(len(self.keys))
        found = [
            {name: interval(float(values[row, r]), spread[:, row, r]) for row, name in enumerate(INDICATORS)}
            for r in fronts
        ]
        gains = [interval(float(values[0, r] - values[0, 0]), spread[:, 0, r] - spread[:, 0, 0]) for r in fronts]
        return found, gains

    def contributions(self) -> list[dict[str, Interval]]:
        """Per front: member → what it alone adds to the hypervolume of the union front."""
        values = contributions(self.costs, self.scale)
        spread = bootstrap(self.drawn, lambda fronts: np.concatenate(contributions(fronts, self.scale)))
        rows = iter(spread.T)
        return [
            {member.id: interval(float(gain), next(rows)) for member, gain in zip(it.members, gains, strict=True)}
            for it, gains in zip(self.contenders, values, strict=True)
        ]

    def coverage(self) -> tuple[tuple[Interval, ...], ...]:
        """C(row, column) in the order of the fronts."""
        return tuple(
            tuple(
                interval(coverage(ours, theirs), coverage_of_draws(our_draws, their_draws))
                for theirs, their_draws in zip(self.costs, self.drawn, strict=True)
            )
            for ours, our_draws in zip(self.costs, self.drawn, strict=True)
        )

    def differences(self, volumes: Sequence[Interval]) -> tuple[Difference, ...]:
        """Every other front against the first; `volumes` are the hypervolumes minus the first one's."""
        return tuple(
            Difference(
                key=self.keys[r],
                against=self.keys[0],
                hypervolume=volumes[r],
                epsilon=self._epsilon(r, 0),
                epsilon_back=self._epsilon(0, r),
            )
            for r in range(1, len(self.keys))
        )

    def _epsilon(self, r: int, other: int) -> Interval:
        value = multiplicative_epsilon(self.costs[r], self.costs[other])
        pair = (self.drawn[r], self.drawn[other])
        return interval(value, bootstrap(pair, lambda fronts: np.array(multiplicative_epsilon(*fronts))))

    def best(self) -> list[dict[str, Best]]:
        """Per front: objective → its best member's value, and the gain over the first front's best."""
        return [
            {objective.name: self._best(r, m, objective) for m, objective in enumerate(self.objectives)}
            for r in range(len(self.keys))
        ]

    def _best(self, r: int, m: int, objective: Objective) -> Best:
        place = int(np.argmin(self.costs[r][:, m]))
        member = self.contenders[r].members[place]
        known = member.estimates[objective.name]
        gain = None
        if r:
            here, there = (self.drawn[i][:, :, m].min(axis=1) for i in (r, 0))
            value = _ratios(self.costs[0][:, m].min(keepdims=True), self.costs[r][place : place + 1, m])[0]
            gain = interval(float(value), _ratios(there, here))
        return Best(member=member.id, value=Interval(value=known.value, low=known.low, high=known.high), gain=gain)


def _ratios(there: FloatArray, here: FloatArray) -> FloatArray:
    """How many times better `here` is, from costs; two that are both infinite are equal."""
    ratios: FloatArray = np.exp(np.subtract(there, here, out=np.zeros_like(there), where=there != here))
    return ratios


def _draw(contender: Contender, objectives: Sequence[Objective], rng: np.random.Generator) -> FloatArray:
    draws = [draw_costs(objectives, m.samples, m.estimates, DRAWS, rng) for m in contender.members]
    return np.stack(draws, axis=1)
