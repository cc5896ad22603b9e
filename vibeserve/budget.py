"""Decides when a search has used up what it was given: children, wall time, GPU-hours, tokens, dollars."""

from __future__ import annotations

from collections.abc import Callable

from population.replay import State
from vibeserve.agents.prices import Bill
from vibeserve.rules import Rules
from vibeserve.spent import Spent


class Budget:
    """What is left of one run, over all of its drivers."""

    def __init__(self, rules: Rules, state: State, clock_s: Callable[[], float]) -> None:
        self._rules, self._state, self._clock_s = rules, state, clock_s
        self._before_s, self._began_s = state.elapsed_s, clock_s()
        self._spent = Spent(state, rules.prices)

    @property
    def elapsed_s(self) -> float:
        """Seconds of this run's drivers, summed over resumes."""
        return self._before_s + self._clock_s() - self._began_s

    @property
    def gpu_hours(self) -> float:
        """GPU-hours leased to evaluations that have ended."""
        return self._state.evaluate_s * self._rules.gpus_per_evaluation / 3600

    @property
    def bill(self) -> Bill:
        """What models have cost."""
        return self._spent.bill

    @property
    def children_left(self) -> int | None:
        """Children that may still be proposed; None: any number."""
        return None if self._rules.children is None else max(0, self._rules.children + 1 - self._state.next_number)

    def used_up(self, drawn: int = 0) -> str | None:
        """Which budget is used up, once `drawn` more children are proposed; None: the search goes on."""
        if self._rules.children is not None and self._state.next_number + drawn > self._rules.children:
            return "budget: children"
        return self.time_used_up() or self._models_used_up(drawn)

    def more_work(self) -> str | None:
        """Which budget does not allow to begin anything for a child that exists already; None: none."""
        return self.time_used_up() or self._models_used_up(0)

    def time_used_up(self) -> str | None:
        """Which budget of time is used up; a child that could not end within the wall time is not begun."""
        rules, state = self._rules, self._state
        if rules.wall_time_s is not None and self.elapsed_s + state.mean_cost_s > rules.wall_time_s:
            return "budget: wall time"
        if rules.gpu_hours is not None and self.gpu_hours >= rules.gpu_hours:
            return "budget: gpu hours"
        return None

    def _models_used_up(self, drawn: int) -> str | None:
        """A child whose tokens would probably go beyond is not begun, by the mean of those before it."""
        tokens, dollars = self._rules.tokens, self._rules.dollars
        if tokens is None and dollars is None:
            return None
        spent, ahead = self._spent, self._spent.flying + drawn + 1
        if tokens is not None and (spent.tokens >= tokens or spent.tokens + ahead * spent.mean_tokens > tokens):
            return "budget: tokens"
        if dollars is None:
            return None
        if spent.bill.unpriced:
            return f"budget: dollars cannot be counted, {'; '.join(spent.bill.unpriced)}"
        used = spent.bill.dollars + spent.bill.guess
        return "budget: dollars" if used >= dollars or used + ahead * spent.mean_dollars > dollars else None
