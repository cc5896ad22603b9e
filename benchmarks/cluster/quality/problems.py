"""Decides what is searched: test problems with a known front, as one component with a knob per variable.

Every variable is a float knob in [0, 1]. An objective is a metric whose logarithm is the problem's f, scaled so that
the true front spans 0 to 1 in it: the best and the worst of the front are a factor e apart, and log-normal noise of 5 %
of the metric is additive noise of 5 % of the front's extent. Every run starts from one random point of its seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import moocore
import numpy as np
from pymoo.problems import get_problem

from population.archive import Archive
from population.candidate import Candidate, Operator, Proposal
from population.evaluation import Scored
from population.genome import Component, Genome, Knob, KnobValue
from population.objectives import Direction, FloatArray, Objective, ObjectiveSet

NOISE = 0.05
COMPONENT = "model"
_REACH = 1.1
"""Reference point of the hypervolume in every objective, where the front spans 0 to 1."""
_SPREAD = 0.8
"""Standard deviation of the logarithm of an evaluation's duration, as of the stub LLM in peer_bench."""
_SPHERE = _REACH**3 - math.pi / 6
_DENSE = 5000
_DENSITY = {"zdt1": "n_pareto_points", "zdt2": "n_pareto_points", "zdt3": "n_points"}
"""How pymoo calls the number of points of a front."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A test problem on the unit cube."""

    name: str
    pymoo: Any
    ideal_M: FloatArray
    nadir_M: FloatArray
    volume: float
    """Hypervolume of the true front inside the reference point."""

    @property
    def reference_M(self) -> FloatArray:
        return np.full(len(self.ideal_M), _REACH)

    @property
    def objectives(self) -> ObjectiveSet:
        names = [f"f{i + 1}" for i in range(len(self.ideal_M))]
        return ObjectiveSet(tuple(Objective(name=n, direction=Direction.MIN, relative_noise=NOISE) for n in names))

    def costs(self, point_D: FloatArray) -> FloatArray:
        """True costs (M,) of a point of the unit cube."""
        found = self.pymoo.evaluate(self.pymoo.xl + point_D * (self.pymoo.xu - self.pymoo.xl))
        scaled: FloatArray = (np.asarray(found) - self.ideal_M) / (self.nadir_M - self.ideal_M)
        return scaled


@cache
def problem(name: str) -> Problem:
    """`zdt1` … `zdt3` (10 knobs instead of the usual 30, 2 objectives), `dtlz2` (10, 3), `wfg4`, `wfg9` (12, 3)."""
    if name.startswith("wfg"):
        scale_M = np.array([2.0, 4.0, 6.0])
        return Problem(name, get_problem(name, n_var=12, n_obj=3), np.zeros(3), scale_M, _SPHERE)
    if name == "dtlz2":
        return Problem(name, get_problem(name), np.zeros(3), np.ones(3), _SPHERE)
    found = get_problem(name, n_var=10)
    front = np.asarray(found.pareto_front(**{_DENSITY[name]: _DENSE}))
    ideal_M, nadir_M = front.min(axis=0), front.max(axis=0)
    volume = moocore.hypervolume((front - ideal_M) / (nadir_M - ideal_M), ref=np.full(2, _REACH))
    return Problem(name, found, ideal_M, nadir_M, float(volume))


def knob_name(variable: int) -> str:
    return f"{COMPONENT}.x{variable:02d}"


def genome(point_D: FloatArray) -> Genome:
    """One component with a knob per variable."""
    knobs = {f"x{i:02d}": Knob(value=float(u), type="float", low=0.0, high=1.0) for i, u in enumerate(point_D)}
    return Genome({COMPONENT: Component(name=COMPONENT, interface=1, implementation="point", knobs=knobs)})


def settings(point_D: FloatArray) -> dict[str, KnobValue]:
    """The knobs that make any tree this point."""
    return {knob_name(i): float(u) for i, u in enumerate(point_D)}


@dataclass(slots=True)
class Cube:
    """One run on a test problem; a `World` (steady.py)."""

    problem: Problem
    seed: int
    archive: Archive = field(init=False)
    points: dict[str, FloatArray] = field(default_factory=dict)
    exact: dict[str, FloatArray] = field(default_factory=dict)
    """Candidate id → true costs (M,)."""

    def __post_init__(self) -> None:
        self.archive = Archive(self.problem.objectives)

    def duration_s(self, proposal: Proposal) -> float:
        return float(np.random.default_rng([self.seed, proposal.number, 1]).lognormal(0.0, _SPREAD))

    def finish(self, proposal: Proposal, cost_s: float) -> None:
        """The child of the proposal ends and is measured once, with noise."""
        rng = np.random.default_rng([self.seed, proposal.number, 2])
        point_D = self._point(proposal, rng)
        costs_M = self.problem.costs(point_D)
        noisy = np.exp(costs_M + NOISE * rng.standard_normal(len(costs_M)))
        names = self.archive.objectives.names
        self.points[proposal.id], self.exact[proposal.id] = point_D, costs_M
        self.archive.add(
            Candidate(
                proposal=proposal,
                commit=f"{proposal.number:040x}",
                tree=point_D.tobytes().hex(),
                genome=genome(point_D),
                evaluation=Scored(samples={n: (float(v),) for n, v in zip(names, noisy, strict=True)}),
                cost_s=cost_s,
            )
        )

    def _point(self, proposal: Proposal, rng: np.random.Generator) -> FloatArray:
        if proposal.operator is Operator.SEED:
            return rng.random(self.problem.pymoo.n_var)
        return moved(self.points[proposal.parents[0]], proposal.knobs)

    def true_costs(self, member: str) -> FloatArray:
        return self.exact[member]

    @property
    def best_M(self) -> FloatArray:
        """Costs (M,) at which a normalised objective is 1."""
        return np.zeros(len(self.problem.ideal_M))

    @property
    def reference_M(self) -> FloatArray:
        return self.problem.reference_M

    @property
    def volume(self) -> float:
        return self.problem.volume


def moved(point_D: FloatArray, knobs: Mapping[str, KnobValue]) -> FloatArray:
    """The point with some of its knobs set."""
    found = point_D.copy()
    for name, value in knobs.items():
        found[int(name.rpartition("x")[2])] = float(value)
    return found
