"""Intervals cover what they say, in a seeded simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from population.statistics import estimate

TRIALS = 3000


def coverage(n: int, true_noise: float, declared: float) -> float:
    samples = np.exp(np.random.default_rng([n, 7]).normal(math.log(40.0), true_noise, size=(TRIALS, n)))
    found = (estimate(tuple(row), declared) for row in samples.tolist())
    return sum(e.low <= 40.0 <= e.high for e in found) / TRIALS


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 10, 14, 19])
def test_intervals_cover_93_to_97_percent_when_the_declared_noise_is_right(n: int) -> None:
    assert 0.93 <= coverage(n, 0.05, 0.05) <= 0.975


def test_bootstrap_covers_too() -> None:
    samples = np.exp(np.random.default_rng(3).normal(0.0, 0.05, size=(600, 20)))
    hits = [e.low <= 1 <= e.high for e in (estimate(tuple(row), 0.05) for row in samples.tolist())]
    assert 0.92 <= float(np.mean(hits)) <= 0.975


@pytest.mark.parametrize("n", [1, 2, 5, 10, 19])
def test_noise_declared_twice_too_high_only_widens(n: int) -> None:
    assert coverage(n, 0.05, 0.10) >= 0.96


@pytest.mark.parametrize(("n", "least"), [(2, 0.80), (3, 0.86), (5, 0.91), (10, 0.935), (19, 0.94)])
def test_noise_declared_twice_too_low_costs_what_the_docstring_says(n: int, least: float) -> None:
    assert coverage(n, 0.05, 0.025) >= least


def test_centre_is_the_geometric_mean() -> None:
    found = estimate((1.0, 4.0), 0.05)
    assert found.value == pytest.approx(2.0) and found.n == 2 and found.low < 2.0 < found.high


def test_failures_give_an_interval_over_everything() -> None:
    found = estimate((10.0, math.inf, math.inf), 0.05)
    assert (found.value, found.low, found.high) == (math.inf, 10.0, math.inf)


@pytest.mark.parametrize("samples", [(), (math.nan,), (-1.0,)])
def test_impossible_samples_are_refused(samples: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="non-negative"):
        estimate(samples, 0.05)
