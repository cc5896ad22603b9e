"""Hypervolume against cases done by hand, gaps, and what to measure once more."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.gaps import goal, widest
from search.indicators import (
    epsilon,
    generation,
    hypervolume,
    hypervolume_history,
    igd_plus,
    improvements,
    normalised,
)
from search.racing import bar, most_doubtful
from tests.contracts.policy_contract import OBJECTIVES, SEED, applied, archive, candidate, measured, wrong

FRONT = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
REFERENCE = np.array([4.0, 4.0])


def test_hypervolume_of_a_staircase() -> None:
    assert hypervolume(FRONT, REFERENCE) == pytest.approx(3 * 1 + 2 * 1 + 1 * 1)
    assert hypervolume(np.vstack([FRONT, [[5.0, 0.0], [np.inf, np.inf]]]), REFERENCE) == pytest.approx(6)
    assert hypervolume(np.empty((0, 2)), REFERENCE) == 0.0


def test_improvement_is_what_the_child_adds() -> None:
    children = np.array([[1.0, 1.0], [3.5, 3.5], [5.0, 0.0], [1.5, 2.5]])
    assert improvements(children, FRONT, REFERENCE) == pytest.approx([3.0, 0.0, 0.0, 0.25])
    assert improvements(children[:1], np.empty((0, 2)), REFERENCE) == pytest.approx([9.0])


def test_history_grows_in_order_of_children() -> None:
    grown = archive(
        [
            SEED,
            candidate(applied(1, "c000000", "cache"), measured(20, 500)),
            candidate(applied(2, "c000000", "order"), wrong()),
            candidate(applied(3, "c000000", "x"), measured(5, 2000)),
        ]
    )
    history = hypervolume_history(grown, grown.costs("c000000"))
    assert [n for n, _ in history] == [0, 1, 2, 3]
    assert [v for _, v in history] == pytest.approx([0.0, *[math.log(2) ** 2] * 3], rel=1e-6)


def test_distances_to_the_true_front() -> None:
    assert igd_plus(FRONT, FRONT) == 0
    assert epsilon(FRONT, FRONT) == 0
    assert epsilon(FRONT + 0.5, FRONT) == pytest.approx(0.5)
    assert normalised(FRONT, FRONT.min(axis=0), FRONT.max(axis=0)).max() == 1.0


def test_generations_only_report() -> None:
    assert [generation(n, 4) for n in (0, 1, 4, 5, 8, 9)] == [0, 0, 0, 1, 1, 2]


def test_the_widest_gap_lies_between_neighbours() -> None:
    gap = widest(np.array([[0.0, 3.0], [0.2, 2.8], [2.9, 0.1], [3.0, 0.0]]), np.full(2, 0.05))
    assert gap is not None
    assert {gap.better, gap.worse} == {1, 2}
    assert widest(np.array([[0.0, 1.0]]), np.full(2, 0.05)) is None
    assert widest(np.array([[0.0, 0.01], [0.01, 0.0]]), np.full(2, 0.05)) is None


def test_a_goal_speaks_in_the_objectives_units() -> None:
    costs = np.array([[-math.log(100), math.log(50)], [-math.log(25), math.log(10)]])
    gap = widest(costs, np.full(2, 0.05))
    assert gap is not None
    text = goal(gap, 0, ("c000001", "c000002"), costs, OBJECTIVES)
    assert text.startswith("Lower ttft without giving up tput. The front has its widest gap between c000001")
    assert goal(gap, 1, ("c000001", "c000002"), costs, OBJECTIVES).startswith("Raise tput without giving up ttft.")
    assert "tput 100 tok/s" in text
    assert "ttft 10 ms" in text
    assert "tput 50 tok/s" in text


def test_the_bar_is_pessimistic() -> None:
    grown = archive([SEED])
    assert bar(grown) == (tuple(grown.bounds("c000000")[1]),)
    assert (np.array(bar(grown)[0]) > grown.costs("c000000")).all()


def test_the_member_with_the_fewest_repeats_is_measured_next() -> None:
    children = [
        SEED,
        candidate(applied(1, "c000000", "cache"), measured(40, 400)),
        candidate(applied(2, "c000000", "order"), measured(80, 800)),
    ]
    grown = archive(children)
    assert set(grown.front) == {"c000001", "c000002"}
    grown.remeasure("c000001", measured(40, 400))
    assert most_doubtful(grown, (), 8) == "c000002"
    assert most_doubtful(grown, ("c000002",), 8) == "c000001"
    assert most_doubtful(grown, ("c000002",), 4) is None
