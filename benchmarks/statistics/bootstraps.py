"""Decides nothing that ships: the bootstrap intervals that `population.statistics` was chosen over, to compare with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist

import numpy as np

from benchmarks.statistics.noise import FloatArray
from population.statistics import estimate, student_t

RESAMPLES = 2000
Interval = Callable[[FloatArray], tuple[float, float]]


def shipped(samples: FloatArray) -> tuple[float, float]:
    found = estimate(np.exp(samples).tolist(), 1.0)
    return math.log(found.low), math.log(found.high)


def plain_percentile(samples: FloatArray) -> tuple[float, float]:
    return _ends(_resampled(samples).mean(axis=1), 2.5, 97.5)


def bca(samples: FloatArray) -> tuple[float, float]:
    """Bias-corrected and accelerated (B. Efron, 1987), with the same expansion for small n as the shipped one."""
    normal, n = NormalDist(), len(samples)
    means = _resampled(samples).mean(axis=1)
    residuals = samples - samples.mean()
    acceleration = float((residuals**3).sum() / (6 * (residuals**2).sum() ** 1.5))
    bias = normal.inv_cdf(min(max(float((means < samples.mean()).mean()), 1e-4), 1 - 1e-4))
    reach = student_t(n - 1) * math.sqrt(n / (n - 1))

    def percent(z: float) -> float:
        return 100 * normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))

    return _ends(means, percent(-reach), percent(reach))


def bootstrap_t(samples: FloatArray) -> tuple[float, float]:
    """Percentile-t (P. Hall, 1988)."""
    n, centre = len(samples), float(samples.mean())
    resampled = _resampled(samples)
    spread = np.maximum(resampled.std(axis=1, ddof=1), 1e-12) / math.sqrt(n)
    low, high = _ends((resampled.mean(axis=1) - centre) / spread, 2.5, 97.5)
    error = float(samples.std(ddof=1)) / math.sqrt(n)
    return centre - high * error, centre - low * error


def plain_t(samples: FloatArray) -> tuple[float, float]:
    n, centre = len(samples), float(samples.mean())
    half = student_t(n - 1) * float(samples.std(ddof=1)) / math.sqrt(n)
    return centre - half, centre + half


def _resampled(samples: FloatArray) -> FloatArray:
    n = len(samples)
    return samples[np.random.default_rng(n).integers(0, n, size=(RESAMPLES, n))]


def _ends(values: FloatArray, low: float, high: float) -> tuple[float, float]:
    ends = np.percentile(values, [low, high])
    return float(ends[0]), float(ends[1])


METHODS: Mapping[str, Interval] = {
    "expanded percentile": shipped,
    "percentile": plain_percentile,
    "BCa": bca,
    "bootstrap-t": bootstrap_t,
    "Student-t": plain_t,
}
