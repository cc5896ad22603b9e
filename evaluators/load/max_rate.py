"""Decides which rate to try next in the search for the highest rate that keeps a service level.

A staircase doubles (or halves) from the first guess until the limit is bracketed, then bisects on the logarithm of
the rate until the bracket is narrower than `tolerance`. Every trial is one open-loop window with the same pattern of
arrivals, compressed or stretched, and fresh prompts. The answer is the highest rate that passed: a server is never
credited with a rate that it did not serve.
"""

from __future__ import annotations

import math

TOLERANCE = 1.08
"""The search ends when the lowest failing rate is less than this factor above the highest passing one."""
TRIALS = 12
"""Windows that one search may take; a start within a factor of 8 of the limit needs about 7."""


class RateSearch:
    """Ask `next_rate()`, try it, tell `record()`; until `next_rate()` is None."""

    def __init__(
        self, start_per_s: float, *, least_per_s: float = 0.0, tolerance: float = TOLERANCE, trials: int = TRIALS
    ) -> None:
        self._rate, self._least_per_s = start_per_s, least_per_s
        self._tolerance = tolerance
        self.trials_left = trials
        self.passed_per_s: float | None = None
        self.failed_per_s: float | None = None

    def next_rate(self) -> float | None:
        """The rate to try; None: the limit is known well enough or below `least_per_s`, or the trials are used up."""
        low, high = self.passed_per_s, self.failed_per_s
        if not self.trials_left or (low and high and high / low <= self._tolerance):
            return None
        if low and high:
            return math.sqrt(low * high)
        if low:
            return low * 2
        if high:
            return high / 2 if high / 2 >= self._least_per_s else None
        return self._rate

    def record(self, rate_per_s: float, passed: bool) -> None:
        """Tell how the trial went. A pass above a failure (noise) moves the failure up: the higher pass is believed."""
        self.trials_left -= 1
        if passed:
            self.passed_per_s = max(rate_per_s, self.passed_per_s or 0.0)
        else:
            self.failed_per_s = min(rate_per_s, self.failed_per_s or math.inf)
        if self.passed_per_s and self.failed_per_s and self.failed_per_s <= self.passed_per_s:
            self.failed_per_s = None
