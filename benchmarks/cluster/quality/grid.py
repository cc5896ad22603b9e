"""Decides what the recorded design space is: every point of the quickstart's grid, measured on two CPU cores.

`benchmarks/quickstart/grid.json`: recipes and knobs of a tiny Llama server. It is a real serving design space with real
rejections and real noise, and small; it is no GPU design space.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from benchmarks.search.table import Table, load_table
from benchmarks.search.world import World
from population.archive import Archive
from population.candidate import Proposal
from population.evaluation import Rejected
from population.objectives import FloatArray
from search.indicators import hypervolume
from search.pedigree import Descent

GRID = Path(__file__).resolve().parents[2] / "quickstart" / "grid.json"
_SPREAD = 0.6
_UNBORN_S = 0.2
"""Seconds until a merge conflict or a known tree is noticed."""


@cache
def table() -> Table:
    return load_table(GRID)


@cache
def shuffled(seed: int) -> Table:
    """The grid with meaningless recipe names, so that no hidden order does the searching."""
    return table().shuffled(np.random.default_rng([seed, 99]))


@dataclass
class Grid:
    """One run on the grid; a `steady.World`."""

    seed: int
    _world: World = field(init=False)

    def __post_init__(self) -> None:
        recorded = shuffled(self.seed)
        recipes = {recipe.name: recipe for recipe in recorded.recipes}
        self._world = World(recorded, Descent(recipes), Archive(recorded.objectives))

    @property
    def archive(self) -> Archive:
        return self._world.archive

    def duration_s(self, proposal: Proposal) -> float:
        made = self._world.make(proposal)
        usual_s = _UNBORN_S if isinstance(made, Rejected) else made.row.entry.cost_s
        spread = np.random.default_rng([self.seed, proposal.number, 1]).lognormal(0.0, _SPREAD)
        return usual_s * float(spread)

    def finish(self, proposal: Proposal, cost_s: float) -> None:
        self._world.finish(proposal, cost_s, np.random.default_rng([self.seed, proposal.number, 2]))

    def true_costs(self, member: str) -> FloatArray:
        return self._world.table.true_costs(self._world.trees[member].row)

    @cached_property
    def best_M(self) -> FloatArray:
        best: FloatArray = _scored_rows().min(axis=0)
        return best

    @cached_property
    def reference_M(self) -> FloatArray:
        """The seed server: what is worse than it in any objective does not count."""
        return table().true_costs(table().seed)

    @cached_property
    def volume(self) -> float:
        return hypervolume(_scored_rows(), self.reference_M)


@cache
def _scored_rows() -> FloatArray:
    return np.array([table().true_costs(row) for row in table().rows if row.entry.rejected is None])
