"""Decides whether one setting is better than another beyond the luck of seeds: rank-sum tests with effect sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

LEAST_RUNS = 5
"""Runs per setting: with four only a clean separation is significant (p = 0.029), and not once two pairs are tested."""
LEVEL = 0.05
NOT_SHOWN = "no difference shown"
"""The verdict where chance may be all there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSum:
    """Two settings and one indicator, of which more is better."""

    first: str
    second: str
    p: float
    """Two-sided Mann-Whitney test; exact without ties."""
    p_corrected: float
    """After Holm over all pairs that were tested."""
    effect: float
    """Vargha & Delaney's A (2000): the chance that a run of the first beats one of the second; 0.5 is no effect."""

    @property
    def verdict(self) -> str:
        """In words."""
        if self.p_corrected >= LEVEL:
            return NOT_SHOWN
        return "better" if self.effect > 0.5 else "worse"

    @property
    def size(self) -> str:
        """The effect in Vargha & Delaney's words."""
        distance = abs(self.effect - 0.5)
        limits = ((0.21, "large"), (0.14, "medium"), (0.06, "small"))
        return next((word for limit, word in limits if distance >= limit - 1e-12), "negligible")


def rank_sums(values: Mapping[str, Sequence[float]]) -> tuple[RankSum, ...]:
    """All pairs of settings that have at least `LEAST_RUNS` values each."""
    from scipy.stats import mannwhitneyu

    names = [name for name, found in values.items() if len(found) >= LEAST_RUNS]
    pairs = list(combinations(names, 2))
    tests = [mannwhitneyu(values[a], values[b], alternative="two-sided", method="auto") for a, b in pairs]
    plain = [float(test.pvalue) for test in tests]
    return tuple(
        RankSum(
            first=a,
            second=b,
            p=p,
            p_corrected=corrected,
            effect=float(test.statistic) / (len(values[a]) * len(values[b])),
        )
        for (a, b), test, p, corrected in zip(pairs, tests, plain, holm(plain), strict=True)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[i])
        corrected[i] = min(1.0, running)
    return corrected
