"""Decides how sure a number is: the centre and 95 % interval of repeated measurements of one metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Two-sided 95 % quantiles of Student's t for 1..19 degrees of freedom (any statistics table).
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093)
_BOOTSTRAP_N = 20
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Central value (geometric mean) with a 95 % interval [low, high] from n repeats; same unit as the metric."""

    value: float
    low: float
    high: float
    n: int


def estimate(samples: Sequence[float], relative_noise: float) -> Estimate:
    """Centre and 95 % interval of n >= 1 positive samples.

    n = 1: the declared `relative_noise` as standard deviation of the logarithm. 2 <= n < 20: Student-t on logarithms,
    whose variance is pooled with the declared noise at the weight of one degree of freedom, because two repeats that
    happen to agree prove little. n >= 20: percentile bootstrap of the mean logarithm with a fixed seed. Samples that
    are 0 or inf (no token, a failed request) give an unbounded interval around that value.

    Raises:
        ValueError: no samples, or a NaN or negative one.
    """
    if not samples or any(math.isnan(s) or s < 0 for s in samples):
        raise ValueError(f"expected at least one non-negative sample, got {list(samples)}")
    if any(s == 0 or math.isinf(s) for s in samples):
        return Estimate(value=float(np.median(samples)), low=float(min(samples)), high=float(max(samples)), n=len(samples))
    logs = np.log(np.asarray(samples, dtype=np.float64))
    centre, n = float(logs.mean()), len(samples)
    if n >= _BOOTSTRAP_N:
        picks = np.random.default_rng(n).integers(0, n, size=(_RESAMPLES, n))
        low, high = np.percentile(logs[picks].mean(axis=1), [2.5, 97.5])
        return Estimate(value=math.exp(centre), low=math.exp(low), high=math.exp(high), n=n)
    if n == 1:
        half = 1.96 * relative_noise
    else:
        variance = (float(((logs - centre) ** 2).sum()) + relative_noise**2) / n
        half = _T95[n - 1] * math.sqrt(variance / n)
    return Estimate(value=math.exp(centre), low=math.exp(centre - half), high=math.exp(centre + half), n=n)
