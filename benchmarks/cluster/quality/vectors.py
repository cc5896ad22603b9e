"""Decides how searchers that think in vectors take part: random search, and pymoo's NSGA-II in two forms.

A tree of a test problem is a vector of knobs, so they propose the seed with every knob set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.core.problem import Problem as Box

from benchmarks.cluster.quality.problems import COMPONENT, settings
from benchmarks.cluster.quality.watching import Alone, Newcomers
from population.archive import Archive
from population.candidate import Operator, Proposal, candidate_id
from population.objectives import FloatArray

_POPULATION = 100


def vector(archive: Archive, member: str) -> FloatArray:
    """The knobs of a member of a test problem, in order."""
    knobs = archive.candidates[member].genome.components[COMPONENT].knobs
    return np.array([float(knobs[name].value) for name in sorted(knobs)])


def _anywhere(point_D: FloatArray, number: int) -> Proposal:
    return Proposal(number=number, operator=Operator.TUNE, parents=(candidate_id(0),), knobs=settings(point_D))


class Uniform(Alone):
    """Any point of the cube."""

    def propose(
        self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator
    ) -> Proposal | None:
        """See `search.policy.Policy.propose`."""
        return _anywhere(rng.random(len(vector(archive, candidate_id(0)))), number)


class SteadyNsga2(Alone):
    """pymoo's NSGA-II without generations: (100 + 1), whoever ends enters, whoever is asked mates the survivors of now.

    Operators, tournament and survival are pymoo's defaults. Until `_POPULATION` were drawn at random, and while fewer
    than two have ended, the answer is random.
    """

    def __init__(self, seed: int) -> None:
        self._news = Newcomers()
        self._seed = seed
        self._algorithm: Any = None
        self._box: Any = None
        self._survivors: Any = Population()

    def propose(
        self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator
    ) -> Proposal | None:
        """See `search.policy.Policy.propose`."""
        if self._algorithm is None:
            self._algorithm, self._box = _nsga2(archive, _POPULATION, self._seed)
        ended = [individual(archive, child.proposal.id) for child in self._news.of(archive)]
        if ended:
            together = Population.merge(self._survivors, Population.create(*ended))
            self._survivors = self._algorithm.survival.do(
                self._box,
                together,
                n_survive=min(_POPULATION, len(together)),
                algorithm=self._algorithm,
                random_state=self._algorithm.random_state,
            )
        if number < _POPULATION or len(self._survivors) < 2:
            return _anywhere(rng.random(self._box.n_var), number)
        born = self._algorithm.mating.do(
            self._box, self._survivors, 1, algorithm=self._algorithm, random_state=self._algorithm.random_state
        )
        return _anywhere(born[0].X if len(born) else rng.random(self._box.n_var), number)


class GenerationalNsga2(Alone):
    """pymoo's NSGA-II as it is, with a population of `size`: nothing new until the whole generation has ended."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._seed = seed
        self._algorithm: Any = None
        self._asked: Any = ()
        self._first = 1

    def propose(
        self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator
    ) -> Proposal | None:
        """See `search.policy.Policy.propose`."""
        if self._algorithm is None:
            self._algorithm, _ = _nsga2(archive, self.size, self._seed)
            self._asked = self._algorithm.ask()
        if number - self._first == len(self._asked):
            if pending:
                return None
            for offset, asked in enumerate(self._asked):
                asked.F = archive.costs(candidate_id(self._first + offset))
            self._algorithm.tell(infills=self._asked)
            self._first, self._asked = number, self._algorithm.ask()
        return _anywhere(self._asked[number - self._first].X, number)


def _nsga2(archive: Archive, size: int, seed: int) -> tuple[Any, Any]:
    box = Box(n_var=len(vector(archive, candidate_id(0))), n_obj=len(archive.objectives), xl=0.0, xu=1.0)
    algorithm = NSGA2(pop_size=size)
    algorithm.setup(box, termination=("n_gen", 10**9), seed=seed, verbose=False)
    return algorithm, box


def individual(archive: Archive, member: str) -> Individual:
    """A member as pymoo has it: measured costs, as if they were exact."""
    found = Individual(X=vector(archive, member), F=np.array(archive.costs(member)))
    found.evaluated.update({"F", "G", "H"})
    return found
