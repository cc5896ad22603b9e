"""Decides the `[search]` table: policy and operators, beside the options that the policies in `search/` declare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from population.candidate import Operator
from population.recipe import Recipe
from search.baselines import BarrierPolicy, Nsga2Config, Nsga2Policy, RandomPolicy
from search.evolve import EvolveConfig, EvolvePolicy
from search.moves import MoveConfig
from search.policy import Policy
from vibeserve.sections import Section, dataclass_of, section_of

SHARES = frozenset(
    {
        "dial_bias",
        "leap",
        "fill_share",
        "early_tune",
        "agent_share",
        "frontier_bias",
        "gap_bias",
        "crossover_probability",
        "discount",
        "prior_reward",
        "wrong_weight",
    }
)
"""Options between 0 and 1."""
COUNTS = frozenset({"population_size", "parents_considered", "tune_draws", "draws", "members", "max_repeats"})
"""Options of at least 1."""


class OperatorsConfig(Section):
    """Which ways of making a child are allowed."""

    recipe: bool = True
    """Apply an executable recipe of the skills."""
    tune: bool = True
    """Move declared knobs."""
    merge: bool = True
    """Make a child of two parents by a three-way git merge."""
    agent: bool = True
    """Let a language model change the parent, where `[agents]` names one; without, there is nobody to do it."""

    def allowed(self, agents: bool) -> tuple[Operator, ...]:
        """The operators that are switched on; `agents`: there is somebody who can carry out `agent`."""
        switches = {
            Operator.RECIPE: self.recipe,
            Operator.TUNE: self.tune,
            Operator.MERGE: self.merge,
            Operator.AGENT: self.agent and agents,
        }
        return tuple(operator for operator, on in switches.items() if on)


class SearchSection(Section):
    """How parents, operators and goals are chosen; the default policy's options are added by `SearchConfig`."""

    policy: Literal["evolve", "nsga2", "random"] = "evolve"
    """The outer loop. `evolve` is the default search; `nsga2` and `random` are baselines to compare with."""
    barrier: bool = False
    """Classic generations: wait for all of a generation before the next one is proposed. Off: steady state."""
    generation_size: Annotated[int, Field(ge=1)] = 8
    """Children per generation: a reporting unit, and with `barrier` the number that is waited for."""
    operators: OperatorsConfig = OperatorsConfig()

    def build(self, recipes: Mapping[str, Recipe], agents: bool = False, resolves: bool = False) -> Policy:
        """The policy that this table describes; `agents`: whether there is somebody for operator `agent`, `resolves`:
        for merges that conflict."""
        options: Any = self
        moves = dataclass_of(MoveConfig, options.moves, operators=self.operators.allowed(agents), resolves=resolves)
        inner: Policy
        if self.policy == "random":
            inner = RandomPolicy(moves, recipes)
        elif self.policy == "nsga2":
            inner = Nsga2Policy(dataclass_of(Nsga2Config, options.nsga2, moves=moves), recipes)
        else:
            inner = EvolvePolicy(dataclass_of(EvolveConfig, options, moves=moves), recipes)
        return BarrierPolicy(inner, self.generation_size) if self.barrier else inner


if TYPE_CHECKING:
    SearchConfig = SearchSection
else:
    _ours = {"operators", "resolves"}
    _nsga2 = section_of(Nsga2Config, without={"moves"}, shares=SHARES, counts=COUNTS)

    class _WithNsga2(SearchSection):
        nsga2: _nsga2 = _nsga2()

    SearchConfig = section_of(EvolveConfig, base=_WithNsga2, without=_ours, shares=SHARES, counts=COUNTS)
