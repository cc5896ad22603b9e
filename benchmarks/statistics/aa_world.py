"""Decides what search and claim see when no change has an effect: the shipped parts on a simulated machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.search.synthetic import RECIPES, genome
from benchmarks.statistics.noise import Machine
from population.archive import Archive
from population.candidate import Candidate, Operator, Proposal
from population.evaluation import Place, Scored
from population.objectives import ObjectiveSet, objective_samples
from search.evolve import EvolveConfig, EvolvePolicy
from search.pedigree import Pedigree
from vibeserve.claims import LEAST_PAIRS, Claim, Subject, measure_claim
from vibeserve.executor import ChildTask, Evaluated, MeasureTask, Mutated
from vibeserve.inline import InlineExecutor, Progress

SEED = "c000000"
TRUE_VALUE = 100.0


def measured(objectives: ObjectiveSet, machine: Machine, gain: float = 1.0) -> Scored:
    """One repeat of a server that is `gain` times as good as the seed in every objective."""
    samples = {}
    for objective, slowness in zip(objectives, machine.slowness().tolist(), strict=True):
        value = objective.value(objective.cost(TRUE_VALUE) + slowness - math.log(gain))
        samples.update({f"{objective.name}@{load}": (value,) for load in objective.loads} or {objective.name: (value,)})
    return Scored(samples=samples)


@dataclass(slots=True)
class Search:
    """One A/A search with one slot and one repeat per child: every child is another tree and the same server."""

    seed: int
    machine: Machine
    archive: Archive
    policy: EvolvePolicy
    pedigrees: dict[str, Pedigree] = field(default_factory=dict)

    @classmethod
    def begun(cls, objectives: ObjectiveSet, seed: int) -> Search:
        """With the seed server measured."""
        machine = Machine(np.array([o.relative_noise for o in objectives]), np.random.default_rng([seed, 2]))
        policy = EvolvePolicy(EvolveConfig(), {recipe.name: recipe for recipe in RECIPES})
        search = cls(seed, machine, Archive(objectives), policy)
        search._finish(Proposal(number=0, operator=Operator.SEED))
        return search

    def breed(self, children: int) -> None:
        """As many children as asked for, or as the policy can think of."""
        for number in range(1, children + 1):
            rng = np.random.default_rng([self.seed, number])
            proposal = self.policy.propose(self.archive, (), number, rng)
            if proposal is None:
                return
            self._finish(proposal)

    def _finish(self, proposal: Proposal) -> None:
        pedigree = self.policy.descent.child(proposal, self.pedigrees)
        assert pedigree is not None, "a policy proposes from members of its archive"
        self.pedigrees[proposal.id] = pedigree
        self.archive.add(
            Candidate(
                proposal=proposal,
                commit=f"{proposal.number:040x}",
                tree=f"{proposal.number:040x}",
                genome=genome(pedigree.recipes, dict(pedigree.settings)),
                evaluation=measured(self.archive.objectives, self.machine),
                cost_s=6.0,
            )
        )

    def remeasure(self, index: int) -> None:
        """What the policy would have measured once more, if anything."""
        candidate = self.policy.remeasure(self.archive, (), np.random.default_rng([self.seed, 1, index]))
        if candidate is not None:
            self.archive.remeasure(candidate, measured(self.archive.objectives, self.machine))

    def challengers(self) -> tuple[str, ...]:
        """The front in its order, without the seed: whom a user would verify."""
        return tuple(member for member in self.archive.front if member != SEED)

    def gains(self, member: str) -> list[float]:
        """Of the central values over the seed's, per objective."""
        ours, seeds = self.archive.estimates(member), self.archive.estimates(SEED)
        return [o.gain(ours[o.name].value, seeds[o.name].value) for o in self.archive.objectives]

    def finals(self) -> dict[str, list[float]]:
        """Challenger → gains over the seed, each measured once more after the search."""
        seed = measured(self.archive.objectives, self.machine)
        return {m: self._gains_over(seed, measured(self.archive.objectives, self.machine)) for m in self.challengers()}

    def _gains_over(self, seed: Scored, ours: Scored) -> list[float]:
        values = (
            (o, objective_samples(o, ours.samples), objective_samples(o, seed.samples)) for o in self.archive.objectives
        )
        return [o.gain(mine[0], theirs[0]) for o, mine, theirs in values]


@dataclass(frozen=True, slots=True)
class Shop:
    """The workshop of a claim: every subject is measured on one machine."""

    objectives: ObjectiveSet
    machine: Machine
    gains: Mapping[str, float]
    """Commit → how many times as good as the seed it truly is."""

    def mutate(self, task: ChildTask) -> Mutated:
        raise AssertionError(f"a claim mutates nothing, got {task.proposal.id}")

    def measure(self, task: MeasureTask, progress: Progress) -> Evaluated:
        evaluation = measured(self.objectives, self.machine, self.gains[str(task.commit)])
        return Evaluated(evaluation=evaluation, elapsed_s=6.0, place=Place(node="simulated"))


def claim(objectives: ObjectiveSet, machine: Machine, candidate: str, gain: float = 1.0) -> Claim:
    """The shipped claim, of a candidate that is truly `gain` times as good as the seed."""
    sides = (Subject(name=candidate, commit="theirs", bundle=b""), Subject(name="seed", commit="seed", bundle=b""))
    executor = InlineExecutor(Shop(objectives, machine, {"theirs": gain, "seed": 1.0}))
    return measure_claim(sides, executor, objectives, 0, LEAST_PAIRS, lambda text: None)
