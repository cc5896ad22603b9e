"""Decides how OpenEvolve takes part: its database chooses the parent, our operators make the child."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.cluster.quality.database import Database
from benchmarks.cluster.quality.watching import Alone, Newcomers
from population.archive import Archive
from population.candidate import Child, Operator, Proposal
from population.evaluation import Scored
from population.genome import Knob
from population.objectives import FloatArray
from population.recipe import Recipe
from search.landscape import survey
from search.moves import MoveConfig, moves_from, steps_only
from search.pedigree import Descent
from search.variation import VariationConfig, variations

_MATES = 4
_ATTEMPTS = 20
"""Parents asked for, when everything that can be made of one is known; an LLM would repeat itself there."""


@dataclass(slots=True)
class OpenEvolve(Alone):
    """OpenEvolve's database chooses parent and inspirations; the child is any move of ours from that parent.

    `combined_score` is the mean over the objectives of best over measured (1 is the best attainable), and the
    objectives themselves are the feature dimensions of its MAP-Elites grid: the most that it can be told of them.
    """

    recipes: Mapping[str, Recipe]
    database: Database
    seed: int
    best_M: FloatArray
    news: Newcomers = field(default_factory=Newcomers)
    islands: dict[int, int] = field(default_factory=dict)
    descent: Descent = field(init=False)

    def __post_init__(self) -> None:
        self.descent = Descent(self.recipes)

    def propose(
        self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator
    ) -> Proposal | None:
        """See `search.policy.Policy.propose`."""
        if not self.news.seen:
            self.database.reset(self.seed, archive.objectives.names)
        for child in self.news.of(archive):
            if isinstance(child.evaluation, Scored):
                self._add(archive, child)
        for attempt in range(_ATTEMPTS):
            island = number + attempt
            parent, inspirations = self.database.sample(island)
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
        """A move from the parent `family[0]`; on test problems a knob change, half of them crossed with a mate."""
        parent, mates = family
        if not self.recipes:
            mate = mates[int(rng.integers(len(mates)))] if mates and rng.random() < 0.5 else parent
            knobs = variations(_knobs(archive, parent), [_knobs(archive, mate)], VariationConfig(), rng)[0]
            return Proposal(number=number, operator=Operator.TUNE, parents=(parent,), knobs=knobs)
        land = survey(archive, self.descent)
        moves = moves_from(land, parent, mates, land.taken(pending), steps_only(MoveConfig(tune_draws=2)), rng)
        if not moves:
            return None
        move = moves[int(rng.integers(len(moves)))]
        return Proposal(
            number=number, operator=move.operator, parents=move.parents, recipe=move.recipe, knobs=move.knobs
        )

    def _add(self, archive: Archive, child: Child) -> None:
        member, number = child.proposal.id, child.proposal.number
        costs_M = archive.costs(member)
        metrics = dict(zip(archive.objectives.names, map(float, costs_M), strict=True))
        score = float(np.exp(self.best_M - costs_M).mean())
        parent = child.proposal.parents[0] if number else None
        self.database.add(member, parent, self.islands.pop(number, None), {"combined_score": score, **metrics})


def _knobs(archive: Archive, member: str) -> dict[str, Knob]:
    return archive.candidates[member].genome.knobs
