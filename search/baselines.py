"""Decides the next child by simpler rules, for comparison: NSGA-II, random choice, a barrier between generations."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from population.archive import Archive
from population.candidate import Candidate, Operator, Proposal
from population.dominance import Points
from population.recipe import Recipe
from search import racing
from search.history import Key
from search.indicators import generation
from search.landscape import Landscape, survey
from search.moves import Move, MoveConfig, moves_from, steps_only
from search.pedigree import Descent
from search.policy import Policy
from search.survival import FloatArray, IntArray, crowding, survivors

_MATES = 12
"""Other parents considered for a merge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nsga2Config:
    """Of NSGA-II (Deb et al. 2002); wrap the policy in `BarrierPolicy` for the classic generational form."""

    population_size: int = 12
    """Survivors of every generation."""
    crossover_probability: float = 0.5
    """Probability 0..1 of a merge, where one is possible; otherwise a recipe or knob change, drawn evenly."""
    moves: MoveConfig = field(default_factory=MoveConfig)
    max_repeats: int = 8
    """Samples beyond which a member of the front is not measured again."""


Draw = Callable[[Landscape, str, list[str], Container[Key], np.random.Generator], Move | None]


def _first(
    land: Landscape, parents: Sequence[str], taken: Container[Key], draw: Draw, rng: np.random.Generator
) -> Move | None:
    """The move of the first parent that has any."""
    for parent in parents:
        mates = [member for member in dict.fromkeys(parents) if member != parent][:_MATES]
        move = draw(land, parent, mates, taken, rng)
        if move is not None:
            return move
    return None


def _proposal(move: Move, number: int) -> Proposal:
    return Proposal(number=number, operator=move.operator, parents=move.parents, recipe=move.recipe, knobs=move.knobs)


class Nsga2Policy:
    """Rank-and-crowding survival, binary tournament, and variation drawn evenly from what is possible."""

    def __init__(self, config: Nsga2Config, recipes: Mapping[str, Recipe]) -> None:
        self.config = config
        self.descent = Descent(recipes)

    def propose(
        self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator
    ) -> Proposal | None:
        """See `search.policy.Policy.propose`."""
        if not archive.scored_count:
            return None
        land = survey(archive, self.descent)
        names, costs_NM = [land.names[row] for row in land.pool], land.points.costs_NM[land.pool]
        # Exact costs as intervals of no width: NSGA-II knows no noise.
        chosen, ranks = survivors(Points(costs_NM, costs_NM, costs_NM), self.config.population_size, rng)
        distance = np.zeros(len(chosen))
        for rank in np.unique(ranks):
            distance[ranks == rank] = crowding(costs_NM[chosen[ranks == rank]])
        order = [self._tournament(ranks, distance, rng) for _ in range(4 * len(chosen))]
        order = [*dict.fromkeys(order), *range(len(chosen))]
        move = _first(land, [names[chosen[i]] for i in order], land.taken(pending), self._draw, rng)
        return None if move is None else _proposal(move, number)

    def remeasure(self, archive: Archive, pending: Sequence[str], rng: np.random.Generator) -> str | None:
        """See `search.policy.Policy.remeasure`."""
        return racing.most_doubtful(archive, pending, self.config.max_repeats)

    def _tournament(self, ranks: IntArray, distance: FloatArray, rng: np.random.Generator) -> int:
        one, two = (int(i) for i in rng.integers(len(ranks), size=2))
        return one if (ranks[one], -distance[one]) <= (ranks[two], -distance[two]) else two

    def _draw(
        self, land: Landscape, parent: str, mates: list[str], taken: Container[Key], rng: np.random.Generator
    ) -> Move | None:
        moves = moves_from(land, parent, mates, taken, steps_only(self.config.moves), rng)
        merges = [move for move in moves if move.operator is Operator.MERGE]
        others = [move for move in moves if move.operator is not Operator.MERGE]
        if merges and (not others or rng.random() < self.config.crossover_probability):
            return merges[int(rng.integers(len(merges)))]
        return others[int(rng.integers(len(others)))] if others else None


class RandomPolicy:
    """Any scored parent, any move, all alike."""

    def __init__(self, config: MoveConfig, recipes: Mapping[str, Recipe]) -> None:
        self.config = config
        self.descent = Descent(recipes)

    def propose(
        self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator
    ) -> Proposal | None:
        """See `search.policy.Policy.propose`."""
        land = survey(archive, self.descent)
        parents = rng.permutation(archive.scored).tolist()
        move = _first(land, parents, land.taken(pending), self._draw, rng)
        return None if move is None else _proposal(move, number)

    def remeasure(self, archive: Archive, pending: Sequence[str], rng: np.random.Generator) -> str | None:
        """See `search.policy.Policy.remeasure`."""
        members = [member for member in archive.front if member not in pending]
        return members[int(rng.integers(len(members)))] if members else None

    def _draw(
        self, land: Landscape, parent: str, mates: list[str], taken: Container[Key], rng: np.random.Generator
    ) -> Move | None:
        moves = moves_from(land, parent, mates, taken, steps_only(self.config), rng)
        return moves[int(rng.integers(len(moves)))] if moves else None


class BarrierPolicy:
    """Classic generations around any policy: nothing new while the generation before is unfinished."""

    def __init__(self, inner: Policy, generation_size: int) -> None:
        self.inner = inner
        self.generation_size = generation_size

    def propose(
        self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator
    ) -> Proposal | None:
        """The inner policy's proposal, seeing only generations that have ended; None while one before is unfinished."""
        now = generation(number, self.generation_size)
        if any(generation(proposal.number, self.generation_size) < now for proposal in pending):
            return None
        ended = [child.proposal for child in archive.children.values()]
        siblings = [p for p in ended if p.number and generation(p.number, self.generation_size) == now]
        unseen = sorted([*siblings, *pending], key=lambda proposal: proposal.number)
        past = archive if not siblings else _without(archive, {p.number for p in siblings})
        proposal = self.inner.propose(past, unseen, number, rng)
        if proposal is None and siblings and not pending:
            # The past has nothing left to offer and nobody is waited for: the generation ends early.
            return self.inner.propose(archive, (), number, rng)
        return proposal

    def remeasure(self, archive: Archive, pending: Sequence[str], rng: np.random.Generator) -> str | None:
        """See `search.policy.Policy.remeasure`."""
        return self.inner.remeasure(archive, pending, rng)


def _without(archive: Archive, numbers: set[int]) -> Archive:
    """The archive as it would be had those children not ended yet."""
    past = Archive(archive.objectives)
    for number, child in archive.children.items():
        if number in numbers:
            continue
        past.add(child)
        if isinstance(child, Candidate):
            for evaluation in archive.evaluations(child.id)[1:]:
                past.remeasure(child.id, evaluation)
    return past
