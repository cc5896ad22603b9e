"""Decides which of several models writes a child: by what its children have won so far for what they have cost.

Everything is read from the run's state, so that a resume chooses as the run would have; what was chosen is on record in
the proposal. Children in flight count as chosen, without a result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from population.candidate import Operator, Proposal
from population.replay import State
from search.ensemble import EnsembleConfig, Trial, choose_model, gained
from vibeserve.agents.ensemble import members
from vibeserve.agents.options import AgentOptions
from vibeserve.agents.prices import Bill, total
from vibeserve.rules import Rules
from vibeserve.run_prices import says_itself

_WRITTEN = frozenset({Operator.AGENT, Operator.MERGE})
"""Operators whose children a model may write: a merge, where git finds a conflict."""
_STREAM = 2
"""Keeps the random numbers apart from those of proposals and re-measurements."""


class Casting:
    """Of one run; without several models it leaves proposals as they are."""

    def __init__(self, rules: Rules, state: State) -> None:
        self._rules, self._state = rules, state
        self._config = EnsembleConfig()

    def cast(self, proposal: Proposal, drawn: Sequence[Proposal] = ()) -> Proposal:
        """The proposal with its model; `drawn`: those before it that are not on record yet."""
        if not self._rules.shares or proposal.operator not in _WRITTEN:
            return proposal
        ahead = (*self._state.pending.values(), *drawn)
        flying = Counter(p.model for p in ahead if p.operator is Operator.AGENT and p.model is not None)
        rng = np.random.default_rng([self._rules.seed, _STREAM, proposal.number])
        return replace(proposal, model=choose_model(self._rules.shares, self.trials(), flying, self._config, rng))

    def trials(self) -> list[Trial]:
        """Every child of an ensemble that has ended, oldest first. Merges are none: git makes most of them."""
        written = {
            number: child.proposal.model
            for number, child in self._state.archive.children.items()
            if child.proposal.operator is Operator.AGENT and child.proposal.model is not None
        }
        gains, bills = gained(self._state.archive), {number: self._bill(number) for number in written}
        in_dollars = not any(bill.unpriced for bill in bills.values())
        return [
            Trial(
                model=model,
                gain=gains.get(number, 0.0),
                cost=bills[number].dollars + bills[number].guess if in_dollars else self._million_tokens(number),
            )
            for number, model in written.items()
            if model is not None
        ]

    def _bill(self, number: int) -> Bill:
        cost = self._state.costs.get(number)
        return total(cost.spent, self._rules.prices) if cost is not None else Bill()

    def _million_tokens(self, number: int) -> float:
        cost = self._state.costs.get(number)
        return sum(spent.tokens for spent in cost.spent) / 1e6 if cost is not None else 0.0


def compared_by(rules: Rules, options: AgentOptions) -> list[str]:
    """What to tell the user about how models are compared."""
    if not rules.shares:
        return []
    asked = [member.options for member in members(options) if not says_itself(member.options)]
    unpriced = [str(each.model) for each in asked if each.model not in rules.prices]
    names = ", ".join(rules.shares)
    if unpriced:
        why = f"no price is known for {', '.join(dict.fromkeys(unpriced))}"
        return [f"models {names} take turns, by what they gain per token as long as {why}"]
    return [f"models {names} take turns, by what they gain per dollar"]
