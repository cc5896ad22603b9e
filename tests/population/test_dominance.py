"""The noise-aware relation and its kernel, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from population.dominance import Points, better, dominated_by, front, ranking

COST = st.one_of(st.floats(-5, 5), st.sampled_from([0.0, 1.0, float("inf")]))
WIDTH = st.sampled_from([0.0, 0.05, 0.3, 2.0])


@st.composite
def points(draw: st.DrawFn, widths: st.SearchStrategy[float] = WIDTH, max_objectives: int = 4) -> Points:
    m = draw(st.integers(1, max_objectives))
    rows = draw(st.lists(st.lists(st.tuples(COST, widths, widths), min_size=m, max_size=m), min_size=1, max_size=12))
    table = np.array(rows, dtype=np.float64).reshape(len(rows), m, 3)
    return Points(table[..., 0], table[..., 0] - table[..., 1], table[..., 0] + table[..., 2])


def exact(costs: list[list[float]], width: float = 0.0) -> Points:
    c = np.array(costs, dtype=np.float64)
    return Points(c, c - width, c + width)


def brute_better(p: Points, a: int, b: int, m: int) -> bool:
    cost_a, cost_b = float(p.costs_NM[a, m]), float(p.costs_NM[b, m])
    if cost_a == cost_b:
        return False
    half_a = 0.0 if p.high_NM[a, m] == cost_a else float(p.high_NM[a, m]) - cost_a
    half_b = 0.0 if p.low_NM[b, m] == cost_b else cost_b - float(p.low_NM[b, m])
    return cost_b - cost_a > np.hypot(half_a, half_b)


def brute_key(p: Points, row: int) -> tuple[object, ...]:
    costs = p.costs_NM[row]
    return (float(np.inf if np.isposinf(costs).any() else costs.sum()), *costs.tolist(), row)


def dominated(p: Points) -> np.ndarray:  # type: ignore[type-arg]
    """(N, N): whether the row is dominated by the column, word for word as the module says."""
    n, m = p.costs_NM.shape
    found = [
        [brute_key(p, b) < brute_key(p, a) and not any(brute_better(p, a, b, k) for k in range(m)) for b in range(n)]
        for a in range(n)
    ]
    return np.array(found, dtype=bool).reshape(n, n)


@given(points())
def test_relation_is_irreflexive_asymmetric_and_acyclic(p: Points) -> None:
    relation = dominated(p)
    assert not relation.diagonal().any()
    assert not (relation & relation.T).any()
    order = ranking(p)
    assert not np.triu(relation[np.ix_(order, order)]).any()  # only ever by one that comes earlier, so no cycle


@given(points())
def test_front_is_the_kernel_of_the_relation(p: Points) -> None:
    relation, members = dominated(p), front(p)
    inside = np.zeros(len(p), dtype=bool)
    inside[members] = True
    assert members.size >= 1
    for row in range(len(p)):
        assert inside[row] != bool((relation[row] & inside).any())


@given(points(), st.randoms())
def test_front_does_not_depend_on_the_order_of_arrival(p: Points, random: object) -> None:
    shuffle = np.array(sorted(range(len(p)), key=lambda _: random.random()))  # type: ignore[attr-defined]
    keys = {tuple(np.concatenate([p.costs_NM[i], p.low_NM[i], p.high_NM[i]])) for i in front(p)}
    q = p[shuffle]
    other = {tuple(np.concatenate([q.costs_NM[i], q.low_NM[i], q.high_NM[i]])) for i in front(q)}
    if len(np.unique(p.costs_NM, axis=0)) == len(p):  # equal costs: the first to arrive stays
        assert keys == other


@given(points(widths=st.just(0.0)))
def test_without_noise_it_is_the_pareto_front(p: Points) -> None:
    costs = p.costs_NM
    brute = {tuple(a) for a in costs if not any((b <= a).all() and (b < a).any() for b in costs)}
    assert {tuple(costs[i]) for i in front(p)} == brute
    assert len(front(p)) == len(brute)  # of equal points one stays


@given(points())
def test_dominated_by_agrees_with_the_whole_relation(p: Points) -> None:
    last = len(p) - 1
    expected = dominated(p)[last, :last]
    assert (dominated_by(p[np.array([last])], p[np.arange(last)]) == expected).all()


def test_a_trade_off_beyond_the_noise_keeps_both() -> None:
    assert set(front(exact([[0.0, 1.0], [1.0, 0.0]], width=0.1))) == {0, 1}


def test_near_duplicates_keep_the_better_one() -> None:
    assert list(front(exact([[0.05, 0.0], [0.0, 0.0], [0.0, 0.04]], width=0.1))) == [1]


def test_better_within_the_noise_does_not_save_a_clearly_worse_one() -> None:
    assert list(front(exact([[0.0, 0.05], [1.0, 0.0]], width=0.1))) == [0]


def test_drift_within_the_noise_does_not_lose_a_real_trade_off() -> None:
    """0 dominates 1, 1 would dominate 2, but 2 is really better than 0 in the last objective: it stays."""
    p = exact([[0.0, 0.0, 0.20], [0.5, 0.0, 0.10], [0.5, 0.6, 0.0]], width=0.1)
    assert dominated(p)[1, 0] and dominated(p)[2, 1] and not dominated(p)[2, 0]
    assert set(front(p)) == {0, 2}


def test_infinite_latency_is_worse_than_any_number_but_equal_to_itself() -> None:
    p = exact([[np.inf, 0.0], [3.0, 0.0], [np.inf, 0.0]])
    assert list(front(p)) == [1]
    assert not better(p[np.array([0])], p[np.array([2])]).any()


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"one shape \(N, M\)"):
        Points(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((3, 3)))
