"""Decides who takes part: our default policy, pymoo's NSGA-II in two forms, random search, OpenEvolve's database.

All are policies on the same archive. A tree of a test problem is a vector of knobs, so that those which think in
vectors propose the seed with every knob set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.core.problem import Problem as Box

from benchmarks.cluster.quality.database import Database
from benchmarks.cluster.quality.problems import COMPONENT, settings
from population.archive import Archive
from population.candidate import Child, Operator, Proposal, candidate_id
from population.evaluation import Scored
from population.genome import Knob
from population.objectives import FloatArray
from population.recipe import Recipe
from search.baselines import BarrierPolicy, Nsga2Config, Nsga2Policy, RandomPolicy
from search.evolve import EvolveConfig, EvolvePolicy
from search.landscape import survey
from search.moves import MoveConfig, moves_from
from search.pedigree import Descent
from search.policy import Policy
from search.variation import VariationConfig, vary

_POPULATION = 100
_MATES = 4
_ATTEMPTS = 20
"""Parents that OpenEvolve's database is asked for, when everything that can be made of one is known; an LLM would repeat
itself there."""
Recipes = Mapping[str, Recipe]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a contestant is made for: one run."""

    recipes: Recipes
    slots: int
    seed: int
    best_M: FloatArray
    database: Database | None = None
    """OpenEvolve's; None where it is not installed."""

    def with_database(self, database: Database | None) -> Entry:
        return replace(self, database=database)


@dataclass(slots=True)
class Newcomers:
    """Children of an archive that were not seen yet, in the order in which they ended."""

    seen: int = 0

    def of(self, archive: Archive) -> list[Child]:
        found = list(islice(archive.children.values(), self.seen, None))
        self.seen += len(found)
        return found


class _Alone:
    """Half of a policy: never measures anything again."""

    def remeasure(self, archive: Archive, pending: Sequence[str], rng: np.random.Generator) -> str | None:
        """See `search.policy.Policy.remeasure`."""
        return None


def vector(archive: Archive, member: str) -> FloatArray:
    """The knobs of a member of a test problem, in order."""
    knobs = archive.candidates[member].genome.components[COMPONENT].knobs
    return np.array([float(knobs[name].value) for name in sorted(knobs)])


def _anywhere(point_D: FloatArray, number: int) -> Proposal:
    return Proposal(number=number, operator=Operator.TUNE, parents=(candidate_id(0),), knobs=settings(point_D))


class Uniform(_Alone):
    """Any point of the cube."""

    def propose(
        self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator
    ) -> Proposal | None:
        """See `search.policy.Policy.propose`."""
        return _anywhere(rng.random(len(vector(archive, candidate_id(0)))), number)


class SteadyNsga2(_Alone):
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


class GenerationalNsga2(_Alone):
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


@dataclass(slots=True)
class OpenEvolve(_Alone):
    """OpenEvolve's database chooses parent and inspirations; the child is any move of ours from that parent.

    `combined_score` is the mean over the objectives of best over measured (1 is the best attainable), and the
    objectives themselves are the feature dimensions of its MAP-Elites grid: the most that it can be told of them.
    """

    entry: Entry
    news: Newcomers = field(default_factory=Newcomers)
    islands: dict[int, int] = field(default_factory=dict)
    descent: Descent = field(init=False)

    def __post_init__(self) -> None:
        self.descent = Descent(self.entry.recipes)

    def propose(
        self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator
    ) -> Proposal | None:
        """See `search.policy.Policy.propose`."""
        database = self.entry.database
        if database is None:
            raise RuntimeError("OpenEvolve's database is not running; give its Python with --openevolve")
        if not self.news.seen:
            database.reset(self.entry.seed, archive.objectives.names)
        for child in self.news.of(archive):
            if isinstance(child.evaluation, Scored):
                self._add(database, archive, child)
        for attempt in range(_ATTEMPTS):
            island = number + attempt
            parent, inspirations = database.sample(island)
            mates = [member for member in inspirations if member != parent][:_MATES]
            child = self._child(archive, pending, (parent, mates), number, rng)
            if child is not None:
                self.islands[number] = island
                return child
        return None

    def _child(
        self,
        archive: Archive,
        pending: Sequence[Proposal],
        family: tuple[str, list[str]],
        number: int,
        rng: np.random.Generator,
    ) -> Proposal | None:
        """One move from the parent `family[0]`: knobs alone, half of them crossed with a mate, where nothing else is."""
        parent, mates = family
        if not self.entry.recipes:
            mate = mates[int(rng.integers(len(mates)))] if mates and rng.random() < 0.5 else parent
            knobs = vary(_knobs(archive, parent), _knobs(archive, mate), VariationConfig(), rng)
            return Proposal(number=number, operator=Operator.TUNE, parents=(parent,), knobs=knobs)
        land = survey(archive, self.descent)
        moves = moves_from(land, parent, mates, land.taken(pending), MoveConfig(tune_draws=2), rng)
        if not moves:
            return None
        move = moves[int(rng.integers(len(moves)))]
        return Proposal(
            number=number, operator=move.operator, parents=move.parents, recipe=move.recipe, knobs=move.knobs
        )

    def _add(self, database: Database, archive: Archive, child: Child) -> None:
        member, number = child.proposal.id, child.proposal.number
        costs_M = archive.costs(member)
        metrics = dict(zip(archive.objectives.names, map(float, costs_M), strict=True))
        score = float(np.exp(self.entry.best_M - costs_M).mean())
        parent = child.proposal.parents[0] if number else None
        database.add(member, parent, self.islands.pop(number, None), {"combined_score": score, **metrics})


def _knobs(archive: Archive, member: str) -> dict[str, Knob]:
    return archive.candidates[member].genome.knobs


Make = Callable[[Entry], Policy]
OURS, OPENEVOLVE = "vibeserve", "openevolve"
STEADY, GENERATIONAL, RANDOM = "nsga2, steady state", "nsga2, generations", "random"
ON_PROBLEMS: Mapping[str, Make] = {
    OURS: lambda entry: EvolvePolicy(EvolveConfig(), entry.recipes),
    STEADY: lambda entry: SteadyNsga2(entry.seed),
    GENERATIONAL: lambda entry: GenerationalNsga2(entry.slots, entry.seed),
    OPENEVOLVE: OpenEvolve,
    RANDOM: lambda _: Uniform(),
}
ON_GRID: Mapping[str, Make] = {
    OURS: ON_PROBLEMS[OURS],
    STEADY: lambda entry: Nsga2Policy(Nsga2Config(), entry.recipes),
    GENERATIONAL: lambda entry: BarrierPolicy(
        Nsga2Policy(Nsga2Config(population_size=entry.slots), entry.recipes), entry.slots
    ),
    OPENEVOLVE: OpenEvolve,
    RANDOM: lambda entry: RandomPolicy(MoveConfig(), entry.recipes),
}
