"""Decides how sure a number is: the centre and 95 % interval of repeated measurements of one metric, or of pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

_Z95 = 1.959964
# Half-widths in standard errors for n = 2 and 3, see `estimate`. Each solves P(covered) = 96.5 % when the declared
# noise is right: E[2 Φ(q √((χ²_{n-1} + 1) / n)) - 1] = 0.965. The 1.5 % above nominal allow for noise declared too low.
_POOLED = {2: 2.508, 3: 2.609}
_BOOTSTRAP_N = 20
_RESAMPLES = 2000
_ORDER_N = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Central value (geometric mean) with a 95 % interval [low, high] from n repeats; same unit as the metric."""

    value: float
    low: float
    high: float
    n: int


def estimate(samples: Sequence[float], relative_noise: float, widening: float = 1.0) -> Estimate:
    """Centre and 95 % interval of n >= 1 positive samples; the interval is `widening` times as wide on a log scale.

    n = 1: the declared `relative_noise` as standard deviation of the logarithm. n = 2, 3: mean logarithm, with a
    variance that pools the samples' with the declared noise at the weight of one degree of freedom, because two repeats
    that happen to agree prove little and plain Student-t would need ±12.7 standard errors, so that a second look would
    make one less sure. 4 <= n < 20: Student-t on the logarithms, nothing declared. n >= 20: bootstrap of the mean
    logarithm with a fixed seed, its percentiles expanded for small n (T. Hesterberg, What Teachers Should Know about
    the Bootstrap, 2015, "expanded percentile"), because plain percentiles cover 93 % at n = 20, and BCa and
    bootstrap-t less than this where tails are heavy.

    Coverage (benchmarks/statistics/results.md): exact for normal logarithms from n = 4 on, whatever was declared.
    Below, with the declared noise right: 95 % at n = 1, 96.5 % at 2 and 3; half the true noise: 67, 84 and 89 %.

    Samples that are 0 or inf (no token, a failed request) have no mean logarithm: they give their median, with an
    interval between order statistics (the sign test's). Below n = 6 those do not reach 95 %, and the interval is the
    range of the samples, its finite end moved out by the declared noise.

    Raises:
        ValueError: no samples, or a NaN or negative one.
    """
    if not samples or any(math.isnan(s) or s < 0 for s in samples):
        raise ValueError(f"expected at least one non-negative sample, got {list(samples)}")
    if any(s == 0 or math.isinf(s) for s in samples):
        return _of_ranks(samples, math.exp(-_Z95 * relative_noise * widening))
    logs = [math.log(s) for s in samples]
    n, centre = len(logs), math.fsum(logs) / len(logs)
    if n >= _BOOTSTRAP_N:
        low, high = _bootstrap(np.array(logs))
    else:
        half = _half_width(logs, centre, relative_noise)
        low, high = centre - half, centre + half
    low, high = centre + widening * (low - centre), centre + widening * (high - centre)
    return Estimate(value=math.exp(centre), low=math.exp(low), high=math.exp(high), n=n)


def _half_width(logs: Sequence[float], centre: float, relative_noise: float) -> float:
    n = len(logs)
    if n == 1:
        return _Z95 * relative_noise
    squares = math.fsum((log - centre) ** 2 for log in logs)
    if n in _POOLED:
        return _POOLED[n] * math.sqrt((squares + relative_noise**2) / n / n)
    return student_t(n - 1) * math.sqrt(squares / (n - 1) / n)


def _bootstrap(logs: npt.NDArray[np.float64]) -> tuple[float, float]:
    n = len(logs)
    tail = 50 * math.erfc(student_t(n - 1) * math.sqrt(n / (n - 1)) / math.sqrt(2))  # percent, instead of 2.5
    picks = np.random.default_rng(n).integers(0, n, size=(_RESAMPLES, n))
    low, high = np.percentile(logs[picks].mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)


def _of_ranks(samples: Sequence[float], shrink: float) -> Estimate:
    """Median with the narrowest symmetric interval between order statistics that covers it, distribution-free.

    Where even the range does not (n < 6), its low end is multiplied with `shrink`, its high end divided by it.
    """
    ordered, n = sorted(samples), len(samples)
    rank, below = 0, 0.5**n  # P(at most `rank` of n samples lie below the median)
    if below > 0.025:
        low, high = ordered[0] * shrink, ordered[-1] / shrink
    else:
        while (below := below + math.comb(n, rank + 1) * 0.5**n) <= 0.025:
            rank += 1
        low, high = ordered[rank], ordered[-1 - rank]
    return Estimate(value=_median(ordered), low=low, high=high, n=n)


def _median(ordered: Sequence[float]) -> float:
    """Of an even number the geometric mean of the middle two, as everywhere; of 0 and inf it is 1: nothing is known."""
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    if low == high:
        return low
    return 1.0 if (low, high) == (0, math.inf) else math.sqrt(low) * math.sqrt(high)


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float], comparisons: int = 1) -> Estimate:
    """Geometric mean of n >= 2 paired ratios with its interval: Student-t on log ratios, nothing declared or pooled.

    Pairs are in ABBA order: which side came first alternates from pair to pair. From six pairs on, what a steady drift
    of the machine, or coming second, adds to every pair with alternating sign is estimated along with the ratio and
    taken out (least squares, one degree of freedom), so that it neither shifts nor widens the interval.

    `comparisons`: how many such intervals must hold *together* with 95 % (Bonferroni: each has 1 - 0.05 / comparisons).

    A difference of two like measurements is symmetric even where each is skewed, so Student-t covers at any n, and
    errs on the wide side where tails are heavy. A value of 0 or inf (no token, failed requests) gives the median ratio
    with an interval over all ratios, so that one failure rules out a gain; [0, inf] where even that covers too little.
    Two failures count as equal.

    Raises:
        ValueError: fewer than two pairs, unequal lengths, or a NaN or negative value.
    """
    values = [*numerators, *denominators]
    if len(numerators) != len(denominators) or len(numerators) < 2:
        raise ValueError(f"expected at least two pairs, got {len(numerators)} and {len(denominators)} values")
    if not all(value >= 0 for value in values):
        raise ValueError(f"expected values of 0 or more, got {values}")
    confidence = 1 - 0.05 / comparisons
    if not all(0 < value < math.inf for value in values):
        return _with_failures([_ratio(a, b) for a, b in zip(numerators, denominators, strict=True)], confidence)
    logs = np.log(np.array(numerators) / np.array(denominators))
    centre, error, freedom = _without_order(logs) if len(logs) >= _ORDER_N else _mean(logs)
    half = student_t(freedom, confidence) * error
    return Estimate(value=math.exp(centre), low=math.exp(centre - half), high=math.exp(centre + half), n=len(logs))


def _with_failures(ratios: Sequence[float], confidence: float) -> Estimate:
    ordered, n = sorted(ratios), len(ratios)
    covered = 2 * 0.5**n <= 1 - confidence  # by the range, of the median
    low, high = (ordered[0], ordered[-1]) if covered else (0.0, math.inf)
    return Estimate(value=_median(ordered), low=low, high=high, n=n)


def _ratio(numerator: float, denominator: float) -> float:
    if numerator == denominator:
        return 1.0
    return numerator / denominator if denominator else math.inf


def _mean(logs: npt.NDArray[np.float64]) -> tuple[float, float, int]:
    """Mean, its standard error and degrees of freedom."""
    n = len(logs)
    return float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(n), n - 1


def _without_order(logs: npt.NDArray[np.float64]) -> tuple[float, float, int]:
    """The same with the alternating effect of order taken out."""
    n = len(logs)
    design = np.column_stack([np.ones(n), 1.0 - 2.0 * (np.arange(n) % 2)])
    inverse = np.linalg.inv(design.T @ design)
    found = inverse @ design.T @ logs
    squares = float(((logs - design @ found) ** 2).sum())
    return float(found[0]), math.sqrt(squares / (n - 2) * float(inverse[0, 0])), n - 2


@cache
def student_t(freedom: int, confidence: float = 0.95) -> float:
    """Two-sided quantile of Student's t: the t with P(|T| <= t) = `confidence`; exact to 1e-9."""
    low, high = 0.0, NormalDist().inv_cdf((1 + confidence) / 2)
    while _within(high, freedom) < confidence:
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """P(|T| <= t), in closed form for whole degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine**2 * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
