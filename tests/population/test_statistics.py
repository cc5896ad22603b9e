"""Centres, intervals and their special cases; how often they are right is in test_coverage.py."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from population.statistics import Estimate, estimate, paired_ratio, student_t


def log_width(found: Estimate) -> float:
    return math.log(found.high / found.low)


def test_centre_is_the_geometric_mean() -> None:
    found = estimate((1.0, 4.0), 0.05)
    assert found.value == pytest.approx(2.0) and found.n == 2 and found.low < 2.0 < found.high


@pytest.mark.parametrize(("freedom", "confidence", "t"), [
    (1, 0.95, 12.706205), (2, 0.95, 4.302653), (3, 0.95, 3.182446), (9, 0.95, 2.262157), (8, 1 - 0.05 / 3, 3.015762),
    (19, 0.99, 2.860935), (100, 0.5, 0.676951),
])  # fmt: skip
def test_student_t_agrees_with_the_tables(freedom: int, confidence: float, t: float) -> None:
    assert student_t(freedom, confidence) == pytest.approx(t, abs=1e-5)


def test_another_look_does_not_make_one_less_sure() -> None:
    rng = np.random.default_rng(1)
    rows = np.exp(0.05 * rng.standard_normal((500, 8))).tolist()
    widths = [np.mean([log_width(estimate(row[:n], 0.05)) for row in rows]) for n in range(1, 9)]
    assert all(after < 1.05 * before for before, after in pairwise(widths))
    assert widths[7] < 0.5 * widths[0]


def test_one_repeat_has_the_declared_noise_and_many_their_own() -> None:
    assert log_width(estimate((7.0,), 0.1)) == pytest.approx(2 * 1.96 * 0.1, rel=1e-4)
    agreeing = (10.0, 10.1, 9.9, 10.0)
    assert estimate(agreeing, 0.01) == estimate(agreeing, 0.5)
    assert log_width(estimate(agreeing[:2], 0.5)) > log_width(estimate(agreeing[:2], 0.01))


@pytest.mark.parametrize("n", [1, 2, 5, 25])
def test_widening_is_a_factor_on_a_log_scale(n: int) -> None:
    samples = np.exp(np.random.default_rng(n).normal(3, 0.1, n)).tolist()
    narrow, wide = estimate(samples, 0.1), estimate(samples, 0.1, 2.0)
    assert wide.value == narrow.value
    assert log_width(wide) == pytest.approx(2 * log_width(narrow))


@pytest.mark.parametrize("n", [20, 37])
def test_the_bootstrap_is_seeded(n: int) -> None:
    samples = np.exp(np.random.default_rng(n).normal(size=n)).tolist()
    assert estimate(samples, 0.05) == estimate(samples, 0.05)


def test_a_failure_leaves_the_median_and_an_open_end() -> None:
    found = estimate((10.0, math.inf, math.inf), 0.05)
    assert (found.value, found.high, found.n) == (math.inf, math.inf, 3)
    assert found.low == pytest.approx(10.0 * math.exp(-1.959964 * 0.05))
    one = estimate((10.0, 11.0, math.inf), 0.05)
    assert (one.value, one.high) == (11.0, math.inf)


def test_many_samples_bound_the_median_although_one_failed() -> None:
    found = estimate((*range(1, 20), math.inf), 0.05)
    assert (found.low, found.high) == (6, 15)
    assert estimate((0.0, *range(1, 20)), 0.05).high < 19


def test_nothing_but_failures_is_what_it_is() -> None:
    found = estimate((math.inf,), 0.05)
    assert (found.value, found.low, found.high) == (math.inf, math.inf, math.inf)
    none = estimate((0.0, 0.0), 0.05)
    assert (none.value, none.low, none.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("samples", [(), (math.nan,), (-1.0,)])
def test_impossible_samples_are_refused(samples: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="non-negative"):
        estimate(samples, 0.05)


# --- pairs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [6, 7, 10, 11])
def test_an_effect_of_order_neither_shifts_nor_widens(n: int) -> None:
    rng = np.random.default_rng(n)
    quiet = np.exp(rng.normal(0.2, 0.01, n))
    slower = quiet * np.where(np.arange(n) % 2, 1.5, 1 / 1.5)
    plain, ordered = (paired_ratio(rows.tolist(), [1.0] * n) for rows in (quiet, slower))
    assert ordered.value == pytest.approx(plain.value)
    assert log_width(ordered) == pytest.approx(log_width(plain))


def test_few_pairs_are_plain_student_t() -> None:
    found = paired_ratio((2.0, 4.0), (1.0, 1.0))
    logs = np.log([2.0, 4.0])
    assert math.log(found.high / found.value) == pytest.approx(12.706205 * logs.std(ddof=1) / math.sqrt(2))


def test_more_comparisons_need_wider_intervals() -> None:
    ours, theirs = np.exp(np.random.default_rng(0).normal(0, 0.1, (2, 10))).tolist()
    alone, together = paired_ratio(ours, theirs), paired_ratio(ours, theirs, 3)
    assert log_width(together) / log_width(alone) == pytest.approx(student_t(8, 1 - 0.05 / 3) / student_t(8))


def test_a_failure_in_one_pair_of_ten_rules_out_a_gain_of_the_side_that_failed() -> None:
    ours, theirs = [2.0] * 10, [1.0] * 10
    failed = paired_ratio([0.0, *ours[1:]], theirs, 3)
    assert (failed.value, failed.low, failed.high) == (2.0, 0.0, 2.0)
    against = paired_ratio(ours, [0.0, *theirs[1:]], 3)
    assert (against.value, against.low, against.high) == (2.0, 2.0, math.inf)


def test_two_failures_count_as_equal_and_few_pairs_with_one_prove_nothing() -> None:
    assert paired_ratio([math.inf] * 10, [math.inf] * 10).value == 1.0
    few = paired_ratio([math.inf] * 3, [1.0] * 3)
    assert (few.low, few.high) == (0.0, math.inf)


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [([1.0], [1.0], "two pairs"), ([1.0, 2.0], [1.0], "two pairs"), ([1.0, -1.0], [1.0, 1.0], "0 or more")],
)
def test_impossible_pairs_are_refused(ours: list[float], theirs: list[float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        paired_ratio(ours, theirs)
