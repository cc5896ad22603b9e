"""Decides what a proposal yields in a recorded world: recipes add up, merges unite, knobs move to grid points.

Children take their recorded seconds (with a log-normal spread) in simulated slots; a policy that waits loses that time.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.search.table import Row, Table
from population.archive import Archive
from population.candidate import Candidate, Child, Failure, Operator, Proposal
from population.evaluation import Rejected, Stage
from population.genome import KnobValue
from population.objectives import FloatArray
from search.pedigree import Descent
from search.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A simulated working tree."""

    recipes: frozenset[str]
    row: Row
    """The grid point that it is measured as."""


@dataclass(slots=True)
class World:
    """One simulated run on a table."""

    table: Table
    descent: Descent
    archive: Archive
    trees: dict[str, Tree] = field(default_factory=dict)

    def make(self, proposal: Proposal) -> Tree | Rejected:
        """The tree of a proposal, or the merge conflict."""
        if proposal.operator is Operator.SEED:
            return Tree(recipes=frozenset(), row=self.table.seed)
        first = self.trees[proposal.parents[0]]
        recipes, knobs = first.recipes, dict(first.row.knobs)
        if proposal.operator is Operator.RECIPE:
            recipes |= {str(proposal.recipe)}
        elif proposal.operator is Operator.TUNE:
            return self._tuned(first, {**knobs, **proposal.knobs})
        elif proposal.operator is Operator.MERGE:
            second = self.trees[proposal.parents[1]]
            if self._changed(first, second) & self._changed(second, first):
                return Rejected(stage=Stage.MUTATE, reason="merge conflict")
            recipes |= second.recipes
            knobs = self._united(first, second)
        row = self.table.nearest(recipes, knobs)
        return Tree(recipes=recipes, row=row)

    def _tuned(self, tree: Tree, knobs: Mapping[str, KnobValue]) -> Tree:
        """The nearest grid point, though not the one where the tree is."""
        return Tree(recipes=tree.recipes, row=self.table.nearest(tree.recipes, knobs, but=tree.row))

    def _changed(self, mine: Tree, other: Tree) -> frozenset[str]:
        parts = (self.descent.components_of(name) for name in mine.recipes - other.recipes)
        moved = {
            k.partition(".")[0]
            for k, v in mine.row.knobs
            if (k, v) not in other.row.knobs and any(k == name for name, _ in other.row.knobs)
        }
        return frozenset().union(*parts, moved)

    def _united(self, first: Tree, second: Tree) -> dict[str, KnobValue]:
        return {**dict(second.row.knobs), **dict(first.row.knobs)}

    def finish(self, proposal: Proposal, cost_s: float, rng: np.random.Generator) -> None:
        """The child ends; its tree is measured, unless it exists already."""
        made = self.make(proposal)
        child: Child
        if isinstance(made, Rejected):
            self.archive.add(Failure(proposal=proposal, evaluation=made, cost_s=0.2))
            return
        name = f"{sorted(made.recipes)} {sorted(made.row.knobs)}"
        if name in self.archive.trees and proposal.operator is not Operator.TUNE:
            twin = Rejected(stage=Stage.DEDUPE, reason=f"same tree as {self.archive.trees[name]}")
            self.archive.add(Failure(proposal=proposal, evaluation=twin, cost_s=0.2))
            return
        child = Candidate(
            proposal=proposal,
            commit=f"{proposal.number:040x}",
            tree=name,
            genome=self.table.genome(made.row),
            evaluation=self.table.evaluate(made.row, made.recipes, rng),
            cost_s=cost_s,
        )
        self.trees[child.id] = made
        self.archive.add(child)

    def remeasure(self, policy: Policy, rng: np.random.Generator) -> None:
        """Once more what the policy is least sure of."""
        if (member := policy.remeasure(self.archive, [], rng)) is not None:
            tree = self.trees[member]
            self.archive.remeasure(member, self.table.evaluate(tree.row, tree.recipes, rng))

    def true_costs(self) -> FloatArray:
        """True costs (N, M) of the scored members."""
        return np.array([self.table.true_costs(self.trees[member].row) for member in self.archive.scored])


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a simulated run is driven."""

    children: int = 25
    slots: int = 1
    spread: float = 0.0
    """Standard deviation of the logarithm of durations."""
    horizon_s: float = float("inf")
    """Simulated seconds after which the run ends."""
    remeasurements: int = 5
    """Of the front and its contenders, after the last child: what the quickstart's wall time leaves room for."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A simulated run that ended."""

    costs: tuple[FloatArray, ...]
    """True costs (N, M) of all scored so far, after every child that ended."""
    archive: Archive
    """What the policy saw: noisy samples, and the front that a user would be told."""


def simulate(table: Table, policy: Policy, setting: Setting, seed: int) -> Replay:
    """One run of the policy on the table."""
    world = World(table, Descent({r.name: r for r in table.recipes}), Archive(table.objectives))
    world.finish(Proposal(number=0, operator=Operator.SEED), 6.0, np.random.default_rng([seed, 0, 1]))
    flying: list[tuple[float, int, Proposal]] = []
    costs: list[FloatArray] = []
    now_s, number = 0.0, 1
    while True:
        while len(flying) < setting.slots and number <= setting.children and now_s < setting.horizon_s:
            pending = [p for _, _, p in sorted(flying, key=lambda item: item[1])]
            proposal = policy.propose(world.archive, pending, number, np.random.default_rng([seed, number]))
            if proposal is None:
                break
            rng = np.random.default_rng([seed, number, 1])
            duration_s = _duration(world, proposal) * float(np.exp(setting.spread * rng.standard_normal()))
            heapq.heappush(flying, (now_s + duration_s, number, proposal))
            number += 1
        if not flying:
            break
        before_s, (now_s, ended, proposal) = now_s, heapq.heappop(flying)
        if now_s > setting.horizon_s:
            break
        world.finish(proposal, now_s - before_s, np.random.default_rng([seed, ended, 2]))
        costs.append(world.true_costs())
    for index in range(setting.remeasurements):
        world.remeasure(policy, np.random.default_rng([seed, index, 3]))
    return Replay(tuple(costs), world.archive)


def _duration(world: World, proposal: Proposal) -> float:
    made = world.make(proposal)
    return 0.2 if isinstance(made, Rejected) else made.row.entry.cost_s
