"""Decides what a run's models have cost until now, and what the next child will probably cost."""

from __future__ import annotations

from population.candidate import Operator
from population.replay import State
from vibeserve.agents.prices import Bill, Prices, total

ASKS_A_MODEL = frozenset({Operator.AGENT, Operator.REPAIR})
"""Operators whose children are written by a model."""


class Spent:
    """A view of a state that grows; computed anew only when a model was asked since."""

    def __init__(self, state: State, prices: Prices) -> None:
        self._state, self._prices = state, prices
        self._seen: tuple[int, int, int] | None = None
        self._bill, self._children = Bill(), 0

    @property
    def tokens(self) -> int:
        """Input and output of all models."""
        return sum(spent.tokens for spent in self._state.spent.values())

    @property
    def bill(self) -> Bill:
        """Of all models. By child, because a price may hold for short requests only."""
        self._look()
        return self._bill

    @property
    def flying(self) -> int:
        """Children in flight of whose cost nothing is on record yet."""
        state = self._state
        return sum(p.operator in ASKS_A_MODEL and n not in state.costs for n, p in state.pending.items())

    @property
    def mean_tokens(self) -> float:
        """Of one child that was written by a model; 0 before the first."""
        self._look()
        return self.tokens / self._children if self._children else 0.0

    @property
    def mean_dollars(self) -> float:
        """The same in dollars, as far as they are known."""
        self._look()
        return (self._bill.dollars + self._bill.guess) / self._children if self._children else 0.0

    def _look(self) -> None:
        spendings = self._state.spent.values()
        now = (sum(s.requests for s in spendings), sum(s.tokens for s in spendings), len(self._state.costs))
        if now == self._seen:
            return
        self._seen = now
        written = [cost.spent for cost in self._state.costs.values() if cost.spent]
        self._bill = total((spent for child in written for spent in child), self._prices)
        self._children = len(written)
