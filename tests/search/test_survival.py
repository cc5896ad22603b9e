"""Ranks equal brute force, survivors are the best ranked, many objectives go by reference directions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from population.dominance import Points
from search.survival import crowding, fronts, survivors


def exact(costs: npt.NDArray[np.float64]) -> Points:
    return Points(costs, costs, costs)


def brute_force(costs: npt.NDArray[np.float64]) -> list[int]:
    ranks, left, rank = [-1] * len(costs), set(range(len(costs))), 0
    while left:
        front = [i for i in left if not any((costs[j] <= costs[i]).all() and (costs[j] < costs[i]).any() for j in left)]
        for i in front:
            ranks[i] = rank
        left -= set(front)
        rank += 1
    return ranks


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 14), st.integers(1, 3), st.integers(0, 10_000))
def test_ranks_without_noise_equal_brute_force(count: int, objectives: int, seed: int) -> None:
    costs = np.random.default_rng(seed).random((count, objectives))
    found = fronts(exact(costs), count)
    assert [rank for i in range(count) for rank, front in enumerate(found) if i in front] == brute_force(costs)


@settings(deadline=None, max_examples=40)
@given(st.integers(5, 20), st.integers(1, 5), st.integers(2, 4), st.integers(0, 1000))
def test_no_survivor_ranks_behind_a_member_left_out(count: int, objectives: int, size: int, seed: int) -> None:
    costs = np.random.default_rng(seed).random((count, objectives))
    chosen, ranks = survivors(exact(costs), size, np.random.default_rng(seed))
    truth = brute_force(costs)
    assert len(set(chosen)) == size
    assert list(ranks) == sorted(ranks)
    left_out = [truth[i] for i in range(count) if i not in chosen]
    assert max(truth[i] for i in chosen) <= min(left_out)
    assert [truth[i] for i in chosen] == list(ranks)


def test_what_is_within_the_noise_is_no_front_of_its_own() -> None:
    costs = np.array([[0.0, 0.0], [0.01, -0.005], [1.0, 1.0]])
    points = Points(costs, costs - 0.1, costs + 0.1)
    assert [list(front) for front in fronts(points, 3)] == [[0], [1], [2]]


def test_infinite_costs_survive_last() -> None:
    costs = np.array([[np.inf, np.inf, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    chosen, _ = survivors(exact(costs), 2, np.random.default_rng(0))
    assert list(chosen) == [1, 2] or set(chosen) == {1, 2}


def test_crowding_prefers_the_lonely() -> None:
    distance = crowding(np.array([[0.0, 3.0], [0.1, 2.9], [1.5, 1.5], [3.0, 0.0]]))
    assert np.isinf(distance[[0, 3]]).all()
    assert distance[2] > distance[1]


@pytest.mark.parametrize("objectives", [1, 3, 4, 6])
def test_a_large_pool_is_cut_to_size(objectives: int) -> None:
    costs = np.random.default_rng(1).random((4000, objectives))
    chosen, _ = survivors(exact(costs), 32, np.random.default_rng(0))
    assert len(chosen) == 32 == len(set(chosen))
