"""Decides the next child in steady state: parent, operator and detail, from everything that has ended so far.

Parents come from the front (`frontier_bias`) or from the survivors; everything that applies to them and is not known is
listed; a surrogate draws what each would yield, and the largest expected gain of hypervolume wins. Pure: the same
archive, pending work and rng give the same proposal, and no state outlives a call.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from population.archive import Archive
from population.candidate import Operator, Proposal
from population.recipe import Recipe
from search import gaps, racing, selection
from search.bandit import BanditConfig, Pull, choose
from search.confidence import ConfidenceConfig, chance
from search.history import Key, family
from search.indicators import Unclaimed, improvements, reference
from search.landscape import FloatArray, Landscape, spread, survey
from search.moves import Move, MoveConfig, moves_from, recipe_moves, steps_only
from search.pedigree import Descent
from search.selection import Pool
from search.surrogate import SurrogateConfig, sample

_MEASURED = 64
"""Members of the front over which gains of hypervolume are measured; of a larger one, a spread."""
_UNINFORMED = 2
"""Knob changes in flight per knob that need no child of the same recipes to have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvolveConfig:
    """Of the default policy. Defaults were chosen with benchmarks/search/simulate.py."""

    frontier_bias: float = 0.7
    """Probability 0..1 that a parent comes from the front."""
    temperature: float = 1.0
    """Of the softmax over ranks of survivors; 0 takes the best rank only, large values any."""
    population_size: int = 32
    """Survivors that may become parents when not on the front."""
    parents_considered: int = 8
    """Parents drawn per proposal, whose moves compete; 1 leaves the choice of the parent to chance."""
    mates_considered: int = 4
    """Survivors considered per parent as the other side of a merge or of a knob crossover."""
    inspirations_front: int = 2
    """Other members of the front shown to an LLM mutator."""
    inspirations_others: int = 2
    """Other survivors, of the most different parts, shown to an LLM mutator."""
    gap_goals: bool = True
    """Whether children of the ends of the front's widest gap are told to fill it."""
    gap_bias: float = 0.0
    """Probability 0..1 that a parent drawn from the front is an end of its widest gap."""
    fill_share: float = 0.6
    """Probability 0..1 that a proposal moves the dials (`Knob.trades`) of the widest gap's ends, once they are ripe."""
    early_tune: float = 0.0
    """Weight 0..1 of knob changes while a recipe that nobody tried yet applies to a drawn parent."""
    agent_share: float = 0.5
    """Probability 0..1 that a proposal is a free edit by an agent, where there is one; so is every proposal for which
    nothing else is left."""
    tune_ahead: float = 1.0
    """Knob changes in flight that trees which differ in knobs alone may have, per child of theirs that has ended; two
    per knob of theirs may always be in flight."""
    use_bandit: bool = False
    """Whether the operator is chosen first, by hypervolume gain per second; otherwise all moves compete directly."""
    reach: float = 0.1
    """How far beyond the front's worst a gain of hypervolume counts, in extents of the front, where the seed is better
    than that: the front may give up what the seed has."""
    use_surrogate: bool = True
    """Whether moves are compared by what they would probably yield; otherwise any is as good as another."""
    unlock_bonus: float = 1.2
    """Added to the weight 1 of a recipe for each recipe that needs a capability which it would bring to the tree."""
    max_repeats: int = 8
    """Samples beyond which a member of the front is not measured again."""
    moves: MoveConfig = field(default_factory=MoveConfig)
    bandit: BanditConfig = field(default_factory=BanditConfig)
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    surrogate: SurrogateConfig = field(default_factory=SurrogateConfig)


class EvolvePolicy:
    """The default policy; see the module. `recipes`: every recipe that may be proposed, by name."""

    def __init__(self, config: EvolveConfig, recipes: Mapping[str, Recipe]) -> None:
        self.config = config if config.use_surrogate else replace(config, moves=steps_only(config.moves))
        self.descent = Descent(recipes)

    def propose(
        self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator
    ) -> Proposal | None:
        """See `search.policy.Policy.propose`; None when every parent is exhausted or none is scored."""
        if not archive.scored_count:
            return None
        land = survey(archive, self.descent)
        pool = selection.gather(land, self.config.population_size, rng)
        taken = land.taken(pending)
        moves = self._filling(land, pool, taken, rng) or self._moves(land, pool, taken, rng)
        if not moves:
            return None
        if Operator.AGENT in self.config.moves.operators:
            moves = self._shared(moves, rng)
        if self.config.use_bandit:
            moves = self._by_bandit(land, moves)
        return self._proposal(land, pool, self._best(land, moves, rng), number, rng)

    def remeasure(self, archive: Archive, pending: Sequence[str], rng: np.random.Generator) -> str | None:
        """See `search.policy.Policy.remeasure`."""
        return racing.most_doubtful(archive, pending, self.config.max_repeats)

    def _filling(self, land: Landscape, pool: Pool, taken: Container[Key], rng: np.random.Generator) -> list[Move]:
        """With probability `fill_share`: what moves an end of the widest gap along the front, by its dials alone."""
        if pool.gap is None or Operator.TUNE not in self.config.moves.operators:
            return []
        if rng.random() >= self.config.fill_share:
            return []
        dials = replace(self.config.moves.variation, dial_bias=1.0)
        only = replace(self.config.moves, operators=(Operator.TUNE,), variation=dials)
        ends = [land.names[i] for i in (pool.gap.better, pool.gap.worse)]
        ripe = [end for end in ends if self._may_tune(land, end) and self._ripe(land, end, taken)]
        return [move for end in ripe for move in moves_from(land, end, [], taken, only, rng)]

    def _shared(self, moves: list[Move], rng: np.random.Generator) -> list[Move]:
        """Either free edits or all the others, by `agent_share`; what there is, where there is one kind only."""
        by_agent = [move for move in moves if move.operator is Operator.AGENT]
        others = [move for move in moves if move.operator is not Operator.AGENT]
        return (by_agent or others) if rng.random() < self.config.agent_share else (others or by_agent)

    def _ripe(self, land: Landscape, end: str, taken: Container[Key]) -> bool:
        """Whether a tree has dials, and no recipe that nobody tried yet: until then, recipes lead further."""
        has_dials = any(knob.trades for knob in land.knobs(end).values())
        new = (move for move in recipe_moves(land, end, taken) if move.kind not in land.outcomes)
        return has_dials and next(new, None) is None

    def _moves(self, land: Landscape, pool: Pool, taken: Container[Key], rng: np.random.Generator) -> list[Move]:
        """Moves of the drawn parents; of the first survivor that has any, when those are exhausted."""
        drawn = dict.fromkeys(self._parent(pool, rng) for _ in range(self.config.parents_considered))
        moves = [move for parent in drawn for move in self._from(land, pool, parent, taken, rng)]
        rest = iter([int(i) for i in pool.survivors_S if int(i) not in drawn])
        while not moves and (parent := next(rest, None)) is not None:
            moves = self._from(land, pool, parent, taken, rng)
        return moves

    def _from(
        self, land: Landscape, pool: Pool, parent: int, taken: Container[Key], rng: np.random.Generator
    ) -> list[Move]:
        others = pool.survivors_S[pool.survivors_S != parent]
        mates = [land.names[i] for i in rng.permutation(others)[: self.config.mates_considered]]
        member, moves = land.names[parent], self.config.moves
        if not self._may_tune(land, member):
            moves = replace(moves, operators=tuple(op for op in moves.operators if op is not Operator.TUNE))
        return moves_from(land, member, mates, taken, moves, rng)

    def _may_tune(self, land: Landscape, member: str) -> bool:
        """Whether knob changes in flight, chosen without each other's results, would still not outnumber the known."""
        kin, knobs = family(land.pedigree(member)), len(land.knobs(member))
        return land.history.flying[kin] < max(_UNINFORMED * knobs, self.config.tune_ahead * land.history.families[kin])

    def _parent(self, pool: Pool, rng: np.random.Generator) -> int:
        if len(pool.front_F) and rng.random() < self.config.frontier_bias:
            if pool.gap is not None and rng.random() < self.config.gap_bias:
                return pool.gap.better if rng.random() < 0.5 else pool.gap.worse
            return selection.by_crowding(pool, rng)
        return selection.by_rank(pool, self.config.temperature, rng)

    def _by_bandit(self, land: Landscape, moves: list[Move]) -> list[Move]:
        arms = [str(op) for op in self.config.moves.operators if any(m.operator is op for m in moves)]
        arm = choose(arms, pulls(land), self.config.bandit)
        return [move for move in moves if move.operator == arm]

    def _best(self, land: Landscape, moves: list[Move], rng: np.random.Generator) -> Move:
        """The move with the largest sampled gain of hypervolume times sampled chance of success."""
        outcomes = land.outcomes
        chances = {
            kind: chance(outcomes.get(kind), self.config.confidence, rng)
            for kind in dict.fromkeys(move.kind for move in moves)
        }
        weights = np.array([chances[move.kind] * self._promise(land, move) for move in moves])
        if any(move.operator is Operator.RECIPE and move.kind not in outcomes for move in moves):
            weights[[move.operator is Operator.TUNE for move in moves]] *= self.config.early_tune
        if self.config.use_surrogate:
            weights = weights * self._gains(land, moves, rng)
        else:
            weights = weights * rng.random(len(moves))
        return moves[int(weights.argmax())]

    def _gains(self, land: Landscape, moves: list[Move], rng: np.random.Generator) -> FloatArray:
        """Sampled gain of hypervolume (C,) of every move's child over the front."""
        draws = sample(land, [move.at for move in moves], self.config.surrogate, rng)
        costs_NM = land.points.costs_NM
        front_FM = costs_NM[spread(costs_NM, land.front_F, _MEASURED)]
        unclaimed = Unclaimed(front_FM, reference(land.reference_M, front_FM, self.config.reach))
        gains = unclaimed.gains(draws.reshape(-1, draws.shape[2])).reshape(draws.shape[:2]).mean(axis=0)
        # Where no draw reaches the front, the one nearest to it: a tie-break far below any real gain.
        nearness: FloatArray = np.exp(-np.clip(draws.mean(axis=(0, 2)), -50, 50))
        weighed: FloatArray = gains + 1e-9 * nearness
        return weighed

    def _promise(self, land: Landscape, move: Move) -> float:
        """1, and more for a recipe that other recipes wait for (a landmark of planning: Hoffmann et al. 2004)."""
        return 1.0 + self.config.unlock_bonus * self._waiting(land, move)

    def _waiting(self, land: Landscape, move: Move) -> int:
        """How many recipes need a capability that the move would bring to the tree."""
        if move.recipe is None:
            return 0
        has = land.genome(move.parents[0]).capabilities
        new = frozenset(land.descent.recipes[move.recipe].provides) - has
        return sum(not new.isdisjoint(recipe.needs) for recipe in land.descent.recipes.values())

    def _proposal(self, land: Landscape, pool: Pool, move: Move, number: int, rng: np.random.Generator) -> Proposal:
        goal = None
        if self.config.gap_goals and pool.gap is not None:
            ends = {land.names[end]: end for end in (pool.gap.better, pool.gap.worse)}
            start = next((ends[parent] for parent in move.parents if parent in ends), None)
            if start is not None:
                goal = gaps.goal(pool.gap, start, land.names, land.points.costs_NM, land.archive.objectives)
        counts = (self.config.inspirations_front, self.config.inspirations_others)
        return Proposal(
            number=number,
            operator=move.operator,
            parents=move.parents,
            inspirations=selection.inspirations(land, pool, move.parents, counts, rng),
            goal=goal,
            recipe=move.recipe,
            knobs=move.knobs,
        )


def pulls(land: Landscape, window: int = 100) -> list[Pull]:
    """What the last `window` children gained in hypervolume over those before them, and what they cost.

    Those before them are known by their part of the pool, which has the front.
    """
    numbers = land.history.numbers[-window:]
    young = set(numbers)
    candidates = land.archive.candidates
    old = [row for row in land.pool.tolist() if candidates[land.names[row]].proposal.number not in young]
    front = land.points.costs_NM[old]
    found = []
    for number in numbers:
        child = land.archive.children[number]
        gain = 0.0
        if child.proposal.operator is not Operator.SEED and land.archive.is_scored(child.proposal.id):
            row = land.points.costs_NM[land.archive.row(child.proposal.id)][None]
            gain = float(improvements(row, front, land.reference_M)[0])
            front = np.vstack([front, row]) if gain > 0 else front
        found.append(Pull(arm=str(child.proposal.operator), gain=gain, cost_s=child.cost_s))
    return found
