"""The kernel kept up to date equals the kernel from scratch, whatever comes, changes and goes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from population import dominance
from population.dominance import Points
from population.kernel import Kernel
from population.rows import Rows

COST = st.one_of(st.floats(-3, 3), st.sampled_from([0.0, 0.5, 1.0, 1.05, float("inf")]))
WIDTH = st.sampled_from([0.0, 0.05, 0.3, 2.0])
POINT = st.lists(st.tuples(COST, WIDTH, WIDTH), min_size=4, max_size=4)
STEP = st.tuples(st.sampled_from(["come", "come", "come", "change", "go", "several"]), POINT, st.integers(0, 10_000))


class Held:
    """A kernel and the rows that it is of."""

    def __init__(self, objectives: int, crowd: int = 128) -> None:
        self.objectives = objectives
        self.rows = Rows(objectives)
        self.kernel = Kernel(self.rows, crowd)
        self.here: list[int] = []

    def arrays(self, point: list[tuple[float, float, float]]) -> tuple[np.ndarray, ...]:  # type: ignore[type-arg]
        table = np.array(point[: self.objectives], dtype=np.float64)
        return table[:, 0], table[:, 0] - table[:, 1], table[:, 0] + table[:, 2]

    def come(self, *points: list[tuple[float, float, float]]) -> None:
        come = [self.rows.append(*self.arrays(point)) for point in points]
        self.here += come
        self.kernel.update((), come)

    def change(self, row: int, point: list[tuple[float, float, float]]) -> None:
        self.rows.change(row, *self.arrays(point))
        self.kernel.update([row], [row])

    def go(self, row: int) -> None:
        self.here.remove(row)
        self.kernel.update([row], ())

    def from_scratch(self) -> list[int]:
        rows = np.array(self.here, dtype=np.intp)
        return rows[dominance.front(self.rows.points[rows])].tolist() if len(rows) else []


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), st.sampled_from([1, 4, 128]), st.lists(STEP, min_size=1, max_size=40))
def test_the_kernel_kept_up_to_date_is_the_kernel_from_scratch(
    objectives: int, crowd: int, steps: list[tuple[str, list[tuple[float, float, float]], int]]
) -> None:
    held = Held(objectives, crowd)
    for kind, point, pick in steps:
        if kind == "several":
            held.come(point, [(c + 0.01, low, high) for c, low, high in point], point[::-1])
        elif kind == "come" or not held.here:
            held.come(point)
        elif kind == "change":
            held.change(held.here[pick % len(held.here)], point)
        else:
            held.go(held.here[pick % len(held.here)])
        assert list(held.kernel.members) == held.from_scratch()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([0.0, 0.03, 0.3]), st.sampled_from([2, 128]))
def test_a_drifting_crowd_keeps_the_kernel(seed: int, objectives: int, width: float, crowd: int) -> None:
    """Many points that improve slowly: members are unseated again and again, and what they kept finds new keepers."""
    rng, held = np.random.default_rng(seed), Held(objectives, crowd)
    for number in range(150):
        costs = rng.normal(-0.01 * number, 0.3, size=4)
        held.come([(float(c), width, width) for c in costs])
        if number % 7 == 6:
            member = held.kernel.members[int(rng.integers(len(held.kernel.members)))]
            if rng.random() < 0.3:
                held.go(member)
            else:
                held.change(member, [(float(c), width / 2, width / 2) for c in rng.normal(-0.01 * number, 0.3, 4)])
        assert list(held.kernel.members) == held.from_scratch()


def test_points_that_come_at_once_equal_points_that_come_in_turn() -> None:
    rng = np.random.default_rng(0)
    points = [[(float(c), 0.05, 0.05) for c in row] for row in rng.normal(size=(3000, 4))]
    turn, once = Held(3), Held(3)
    for point in points:
        turn.come(point)
    once.come(*points)
    assert list(turn.kernel.members) == list(once.kernel.members) == once.from_scratch()


def test_rounding_cannot_tell_a_hidden_point_from_its_hider() -> None:
    """Differences of an ulp: only points that differ by more than `SLACK`, or not at all, hide each other."""
    held, ulp = Held(2), float(np.nextafter(0.3, 1)) - 0.3
    for number in range(40):
        first, second = 0.3 + (number % 5) * ulp, 0.6 - (number % 7) * ulp
        held.come([(first, 0.1, 0.1), (second, 0.1 + (number % 3) * ulp, 0.1), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)])
        assert list(held.kernel.members) == held.from_scratch()


def test_one_newcomer_is_compared_with_the_front_only() -> None:
    """The work of a newcomer that changes nothing does not depend on how many are outside: nobody gets a new keeper."""
    rng, held = np.random.default_rng(1), Held(2)
    held.come(*[[(float(c), 0.05, 0.05) for c in row] for row in rng.normal(size=(500, 4))])
    before = list(held.kernel._keeper)
    held.come([(9.0, 0.05, 0.05)] * 4)
    after = list(held.kernel._keeper)
    assert after[:500] == before and len(after) == 501
    assert after[500] in held.kernel.members


def test_nobody_keeps_more_than_a_crowd_of_points_that_hide_each_other() -> None:
    """A chain, each behind the one before: whoever changes is asked about few, and not about everybody behind it."""
    held = Held(1, 8)
    for number in range(500):
        held.come([(float(number), 0.1, 0.1)] * 4)
    assert list(held.kernel.members) == [0]
    kept = np.bincount([keeper for keeper in held.kernel._keeper if keeper >= 0])
    assert kept.sum() == 499 and kept.max() <= 8


def test_views_show_later_rows() -> None:
    rows = Rows(1)
    for number in range(40):
        value = np.array([float(number)])
        assert rows.append(value, value - 1, value + 1) == number
    assert isinstance(rows.points, Points) and rows.points.costs_NM[:, 0].tolist() == list(range(40))
