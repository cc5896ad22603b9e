"""Comparison figures against moocore and pymoo on published sets, against brute force, and against cases by hand."""

from __future__ import annotations

import math

import moocore
import numpy as np
import numpy.typing as npt
import pytest
from pymoo.indicators.epsilon import Epsilon, EpsilonMultiplicative
from pymoo.indicators.hv import HV
from pymoo.indicators.igd_plus import IGDPlus
from pymoo.problems import get_problem
from pymoo.util.ref_dirs import get_reference_directions

from population.objectives import Direction, Objective
from population.statistics import estimate
from search.attainment import difference, surfaces
from search.comparison import (
    INDICATORS,
    Scale,
    bootstrap,
    contributions,
    coverage,
    coverage_of_draws,
    multiplicative_epsilon,
    qualities,
    shared_scale,
    union_front,
)
from search.ranksum import holm, rank_sums
from search.resampling import draw_costs, interval

FloatArray = npt.NDArray[np.float64]

A = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
B = np.array([[1.5, 3.0], [2.0, 2.0], [4.0, 0.5]])


def published(name: str, scale: float = 1.0) -> list[FloatArray]:
    """A set of sets that comes with moocore."""
    rows = moocore.get_dataset(name)
    return [rows[rows[:, -1] == run, :-1] / scale for run in np.unique(rows[:, -1])]


def row(name: str) -> int:
    return INDICATORS.index(name)


# --- equal to the libraries -------------------------------------------------------------------------------------------


def test_the_published_values_of_moocores_documentation() -> None:
    front = np.array([[5.0, 5.0], [4.0, 6.0], [2.0, 7.0], [7.0, 4.0]])
    scale = Scale(np.zeros(2), np.full(2, 10.0))
    assert qualities([front], scale)[row("hypervolume"), 0] * 100 == pytest.approx(38.0)
    assert contributions([front], scale)[0] * 100 == pytest.approx([2, 1, 6, 3])
    near = np.array([[3.5, 5.5], [3.6, 4.1], [4.1, 3.2], [5.5, 1.5]])
    true = np.array([[1.0, 6], [2, 5], [3, 4], [4, 3], [5, 2], [6, 1]])
    assert multiplicative_epsilon(np.log(near), np.log(true)) == pytest.approx(3.5)


SETS = ("input1.dat", "CPFs.txt.xz", "wrots_l10w100_dat.xz", "spherical-250-10-3d.txt.xz", "uniform-250-10-3d.txt.xz")
"""All sets that come with moocore in two and three objectives."""


@pytest.mark.parametrize("name", SETS)
def test_indicators_equal_moocores_and_pymoos(name: str) -> None:
    sets = published(name)[:5]
    sets = [costs * (5 / np.abs(np.vstack(sets)).max()) for costs in sets]  # logarithms, of which exp is taken
    scale = shared_scale(sets)
    found = qualities(sets, scale)
    union = scale.apply(union_front(sets))
    reference = np.ones(union.shape[1])
    for r, costs in enumerate(sets):
        scaled = scale.apply(costs)
        assert found[0, r] == pytest.approx(moocore.hypervolume(scaled, ref=reference), rel=1e-12)
        assert found[1, r] == pytest.approx(moocore.igd_plus(scaled, ref=union), rel=1e-12)
        assert found[2, r] == pytest.approx(moocore.epsilon_additive(scaled, ref=union), rel=1e-12)
        values, others = np.exp(costs), np.exp(union_front(sets))
        assert found[3, r] == pytest.approx(moocore.epsilon_mult(values, ref=others), rel=1e-9)
        assert found[0, r] == pytest.approx(float(HV(ref_point=reference)(scaled)), rel=1e-12)
        assert found[1, r] == pytest.approx(float(IGDPlus(union)(scaled)), rel=1e-12)
        assert found[2, r] == pytest.approx(float(Epsilon(union)(scaled)), rel=1e-12)
        assert found[3, r] == pytest.approx(float(EpsilonMultiplicative(others)(values)), rel=1e-9)
        misses = scaled[None, :, :] - union[:, None, :]  # and the definitions, as pymoo computes with moocore
        assert found[1, r] == pytest.approx(np.linalg.norm(np.maximum(misses, 0), axis=2).min(axis=1).mean(), rel=1e-9)
        assert found[2, r] == pytest.approx(misses.max(axis=2).min(axis=1).max(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["zdt1", "zdt2", "zdt3", "dtlz2"])
def test_indicators_equal_pymoos_on_published_fronts(name: str) -> None:
    directions = (get_reference_directions("das-dennis", 3, n_partitions=6),) if name == "dtlz2" else ()
    front = union_front([get_problem(name).pareto_front(*directions)])
    objectives = front.shape[1]
    near = front + np.array([0.05, 0.02, 0.01])[:objectives]
    scale = Scale(np.zeros(objectives), np.full(objectives, 1.1))
    found = qualities([front, near], scale)
    for r, costs in enumerate((front, near)):
        volume = float(HV(ref_point=np.full(objectives, 1.1))(costs))
        assert found[0, r] * 1.1**objectives == pytest.approx(volume, rel=1e-9)
        assert found[1, r] * 1.1 == pytest.approx(float(IGDPlus(front)(costs)), rel=1e-9, abs=1e-12)
        assert found[2, r] * 1.1 == pytest.approx(float(Epsilon(front)(costs)), rel=1e-9, abs=1e-12)


def test_multiplicative_epsilon_is_of_values_whatever_their_direction() -> None:
    """moocore with its `maximise` on the plain values says the same as we on costs."""
    rng = np.random.default_rng(3)
    throughput, latency = rng.uniform(100, 900, (2, 8)), rng.uniform(5, 50, (2, 8))
    values = [np.column_stack([throughput[i], latency[i]]) for i in range(2)]
    costs = [np.column_stack([-np.log(throughput[i]), np.log(latency[i])]) for i in range(2)]
    theirs = moocore.epsilon_mult(values[0], ref=values[1], maximise=[True, False])
    assert multiplicative_epsilon(costs[0], costs[1]) == pytest.approx(theirs, rel=1e-12)


# --- coverage and contributions ---------------------------------------------------------------------------------------


def test_coverage_by_hand_and_by_brute_force() -> None:
    assert coverage(A, B) == pytest.approx(2 / 3)
    assert coverage(B, A) == pytest.approx(1 / 3)
    assert coverage_of_draws(np.stack([A, B]), np.stack([B, B])).tolist() == [coverage(A, B), 1.0]
    assert math.isnan(coverage(A, np.empty((0, 2))))
    first, second = published("input1.dat")[:2]
    brute = sum(any(all(a <= b) for a in first) for b in second) / len(second)
    assert coverage(first, second) == pytest.approx(brute)


def test_contributions_to_the_union_are_what_would_be_lost() -> None:
    sets = [costs[:6] for costs in published("spherical-250-10-3d.txt.xz")[:3]]
    scale = shared_scale(sets)
    gains, points = np.concatenate(contributions(sets, scale)), scale.apply(np.vstack(sets))
    kept = points[moocore.is_nondominated(points)]
    whole = moocore.hypervolume(kept, ref=np.ones(3))
    for i, point in enumerate(kept):
        rest = moocore.hypervolume(np.delete(kept, i, axis=0), ref=np.ones(3))
        mine = gains[(points == point).all(axis=1)].sum()
        assert mine == pytest.approx(whole - rest, rel=1e-9)
    assert np.count_nonzero(gains) == len(kept)
    twice = contributions([A, A], shared_scale([A, A]))
    assert not np.concatenate(twice).any(), "what both have, neither contributes"


def test_infinite_members_and_empty_fronts_do_not_break_figures() -> None:
    broken = np.array([[0.5, np.inf]])
    scale = shared_scale([A, broken])
    assert scale.ideal_M.tolist() == [1.0, 1.0]
    found = qualities([A, broken], scale)
    assert found[:, 0] == pytest.approx(qualities([A], scale)[:, 0])
    assert found[:, 1].tolist() == [0, math.inf, math.inf, math.inf, 0]
    same = shared_scale([np.array([[1.0, 2.0]])])
    assert same.reference_M == pytest.approx([1 + 1.1 * math.log(2), 2 + 1.1 * math.log(2)])
    noisy = shared_scale([np.array([[1.0, 2.0], [1.02, 0.0]])])
    assert noisy.reference_M == pytest.approx([1 + 1.1 * math.log(2), 2.2]), "2 % are not stretched to fill the box"
    with pytest.raises(ValueError, match="at least one member"):
        shared_scale([broken])


# --- noise ------------------------------------------------------------------------------------------------------------

OBJECTIVES = (
    Objective(name="tput", direction=Direction.MAX, relative_noise=0.05),
    Objective(name="ttft", direction=Direction.MIN, relative_noise=0.05),
)


@pytest.mark.parametrize("repeats", [1, 2, 3, 4, 8, 30])
def test_draws_spread_as_widely_as_the_interval_that_is_shown(repeats: int) -> None:
    rng = np.random.default_rng(repeats)
    samples = {o.name: tuple(np.exp(rng.normal(5, 0.05, repeats))) for o in OBJECTIVES}
    known = {o.name: estimate(samples[o.name], o.relative_noise) for o in OBJECTIVES}
    drawn = draw_costs(OBJECTIVES, samples, known, 4000, rng)
    for m, objective in enumerate(OBJECTIVES):
        shown = abs(objective.cost(known[objective.name].high) - objective.cost(known[objective.name].low))
        assert 2 * 1.96 * drawn[:, m].std() == pytest.approx(shown, rel=0.06)
        assert drawn[:, m].mean() == pytest.approx(objective.cost(known[objective.name].value), abs=shown / 20)


def test_draws_keep_what_varies_together_and_infinite_repeats() -> None:
    rng = np.random.default_rng(0)
    shared = np.exp(rng.normal(0, 0.1, 10))
    samples = {"tput": tuple(100 / shared), "ttft": tuple(10 * shared)}
    known = {o.name: estimate(samples[o.name], o.relative_noise) for o in OBJECTIVES}
    drawn = draw_costs(OBJECTIVES, samples, known, 500, rng)
    assert np.corrcoef(drawn.T)[0, 1] > 0.99
    samples = {"tput": (100.0, 101.0, 99.0), "ttft": (10.0, math.inf, math.inf)}
    known = {o.name: estimate(samples[o.name], o.relative_noise) for o in OBJECTIVES}
    drawn = draw_costs(OBJECTIVES, samples, known, 500, rng)
    assert np.isinf(drawn[:, 1]).mean() > 0.5
    assert np.isfinite(drawn[:, 0]).all()
    assert not np.isnan(drawn).any()


def test_intervals_hold_the_value_and_the_draws() -> None:
    drawn = np.linspace(2.0, 4.0, 101)
    found = interval(3.0, drawn)
    assert (found.low, found.high) == pytest.approx((2.05, 3.95))
    assert interval(5.0, drawn).high == 5.0
    assert found.excludes(0) and not found.excludes(2.5)
    lost = interval(math.inf, drawn)
    assert (lost.low, lost.high) == (math.inf, math.inf)
    scale = Scale(np.zeros(2), np.full(2, 5.0))
    stacked = bootstrap([np.stack([A, A + 1]), np.stack([B, B])], lambda fronts: qualities(fronts, scale))
    assert stacked.shape == (2, len(INDICATORS), 2)
    assert (stacked[0] == qualities([A, B], scale)).all()


# --- settings ---------------------------------------------------------------------------------------------------------


def attained(fronts: list[FloatArray], point: FloatArray) -> float:
    return sum(bool((front <= point).all(axis=1).any()) for front in fronts) / len(fronts)


def test_surfaces_are_moocores_and_mean_what_they_say() -> None:
    fronts = published("input1.dat")
    found = surfaces(fronts, (0.1, 0.5, 1.0))
    assert found[0.1][0] == pytest.approx([0.17470556, 8.89066343])
    assert found[1.0][-1] == pytest.approx([7.92511295, 3.92669598])
    for share, corners in found.items():
        assert all(attained(fronts, corner + 1e-9) >= share - 1e-9 for corner in corners)
        assert all(attained(fronts, corner - 1e-6) < share for corner in corners)


def test_differences_are_the_shares_that_attain_inside_each_rectangle() -> None:
    rng = np.random.default_rng(5)
    sets = [[np.sort(rng.random((5, 2)) + shift) for _ in range(4)] for shift in (0.0, 0.15)]
    rectangles = difference(sets[0], sets[1])
    assert rectangles
    for area in rectangles:
        high = [low + 1 if math.isinf(up) else up for low, up in ((area.low_x, area.high_x), (area.low_y, area.high_y))]
        middle = np.array([(area.low_x + high[0]) / 2, (area.low_y + high[1]) / 2])
        assert attained(sets[0], middle) - attained(sets[1], middle) == pytest.approx(area.difference)
    assert difference(sets[0], sets[0]) == ()


def test_rank_sums_by_hand() -> None:
    values = {"a": [1.0, 2, 3, 4, 5], "b": [6.0, 7, 8, 9, 10], "c": [1.5, 2.5, 3.5, 4.5, 5.5], "few": [1.0] * 4}
    found = {(t.first, t.second): t for t in rank_sums(values)}
    assert set(found) == {("a", "b"), ("a", "c"), ("b", "c")}
    apart, close = found["a", "b"], found["a", "c"]
    assert apart.p == pytest.approx(2 / 252)
    assert (apart.effect, apart.verdict, apart.size) == (0.0, "worse", "large")
    assert found["b", "c"].verdict == "better"
    assert close.effect == pytest.approx(10 / 25)
    assert (close.verdict, close.size) == ("no difference shown", "small")
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
