"""Decides when a search has used up what it was given: children, wall time, GPU-hours."""

from __future__ import annotations

from collections.abc import Callable

from population.replay import State
from vibeserve.rules import Rules


class Budget:
    """What is left of one run, over all of its drivers."""

    def __init__(self, rules: Rules, state: State, clock_s: Callable[[], float]) -> None:
        self._rules, self._state, self._clock_s = rules, state, clock_s
        self._before_s, self._began_s = state.elapsed_s, clock_s()

    @property
    def elapsed_s(self) -> float:
        """Seconds of this run's drivers, summed over resumes."""
        return self._before_s + self._clock_s() - self._began_s

    @property
    def gpu_hours(self) -> float:
        """GPU-hours leased to evaluations that have ended."""
        return self._state.evaluate_s * self._rules.gpus_per_evaluation / 3600

    @property
    def children_left(self) -> int | None:
        """Children that may still be proposed; None: any number."""
        return None if self._rules.children is None else max(0, self._rules.children + 1 - self._state.next_number)

    def used_up(self, drawn: int = 0) -> str | None:
        """Which budget is used up, once `drawn` more children are proposed; None: the search goes on."""
        if self._rules.children is not None and self._state.next_number + drawn > self._rules.children:
            return "budget: children"
        return self.time_used_up()

    def time_used_up(self) -> str | None:
        """Which budget of time is used up; a child that could not end within the wall time is not begun."""
        rules, state = self._rules, self._state
        if rules.wall_time_s is not None and self.elapsed_s + state.mean_cost_s > rules.wall_time_s:
            return "budget: wall time"
        if rules.gpu_hours is not None and self.gpu_hours >= rules.gpu_hours:
            return "budget: gpu hours"
        return None
