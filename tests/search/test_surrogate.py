"""The surrogate finds out how much knobs matter, and what is far from all is expected at the common level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from population.archive import Archive
from population.candidate import Candidate, Operator, Proposal
from population.evaluation import Scored
from population.genome import Component, Genome, Knob
from population.objectives import Direction, FloatArray, Objective, ObjectiveSet
from population.recipe import Recipe
from search import surrogate
from search.baselines import Nsga2Config, Nsga2Policy, RandomPolicy
from search.evolve import EvolveConfig, EvolvePolicy
from search.history import Point
from search.indicators import Unclaimed, reference
from search.landscape import Landscape, survey
from search.moves import MoveConfig
from search.pedigree import Descent
from search.policy import Policy
from search.surrogate import SurrogateConfig, sample
from search.variation import VariationConfig, variations

NOISE = 0.05
COUNT = 40


def tree(point_K: FloatArray) -> Genome:
    knobs = {f"x{i}": Knob(value=float(u), type="float", low=0.0, high=1.0) for i, u in enumerate(point_K)}
    return Genome({"model": Component(name="model", interface=1, implementation="point", knobs=knobs)})


def measured_at(points_NK: FloatArray, costs_NM: FloatArray) -> Landscape:
    """The seed is the first point; all others are its children."""
    names = [f"f{m}" for m in range(costs_NM.shape[1])]
    made = Archive(ObjectiveSet(tuple(Objective(name=n, direction=Direction.MIN, relative_noise=NOISE) for n in names)))
    for number, (point_K, costs_M) in enumerate(zip(points_NK, costs_NM, strict=True)):
        knobs = {f"model.x{i}": float(u) for i, u in enumerate(point_K)}
        proposal = Proposal(number=number, operator=Operator.TUNE, parents=("c000000",), knobs=knobs)
        made.add(
            Candidate(
                proposal=proposal if number else Proposal(number=0, operator=Operator.SEED),
                commit=f"{number:040x}",
                tree=f"{number:040x}",
                genome=tree(point_K),
                evaluation=Scored(samples={n: (float(np.exp(c)),) for n, c in zip(names, costs_M, strict=True)}),
                cost_s=1.0,
            )
        )
    return survey(made, Descent({}))


def at(point_K: FloatArray) -> Point:
    return Point(frozenset(), {f"model.x{i}": float(u) for i, u in enumerate(point_K)})


def error(land: Landscape, truth: FloatArray, points_CK: FloatArray, config: SurrogateConfig) -> float:
    """Root mean square error of the mean prediction at unmeasured points."""
    drawn = sample(land, [at(point) for point in points_CK], config, np.random.default_rng(0))
    return float(np.sqrt(np.mean((drawn.mean(axis=0)[:, 0] - truth) ** 2)))


def smooth(points_NK: FloatArray) -> FloatArray:
    return 3.0 * points_NK[:, 0] + np.sin(4.0 * points_NK[:, 1])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_knobs_that_matter_far_and_wide_are_recognised(rng: np.random.Generator) -> None:
    points, elsewhere = rng.random((COUNT, 3)), rng.random((200, 3))
    noisy = smooth(points) + NOISE * rng.standard_normal(COUNT)
    land, many = measured_at(points, noisy[:, None]), SurrogateConfig(draws=200)
    fitted = error(land, smooth(elsewhere), elsewhere, many)
    assert fitted < 0.5 * error(land, smooth(elsewhere), elsewhere, replace(many, fit=False))
    assert fitted < 0.4 * smooth(elsewhere).std()


def test_every_objective_gets_its_own_kernel(rng: np.random.Generator) -> None:
    points, elsewhere = rng.random((COUNT, 3)), rng.random((200, 3))
    flat = NOISE * rng.standard_normal(COUNT)
    costs = np.stack([flat, smooth(points) + NOISE * rng.standard_normal(COUNT)], axis=1)
    drawn = sample(measured_at(points, costs), [at(p) for p in elsewhere], SurrogateConfig(draws=100), rng)
    centre_CM, spread_M = drawn.mean(axis=0), drawn.std(axis=0).mean(axis=0)
    assert np.corrcoef(centre_CM[:, 1], smooth(elsewhere))[0, 1] > 0.9
    assert np.abs(centre_CM[:, 0]).max() < 0.2
    assert spread_M[0] < 0.5 * spread_M[1]


def test_the_chosen_kernel_is_the_most_likely_one(rng: np.random.Generator) -> None:
    points = rng.random((COUNT, 3))
    gains = np.stack([smooth(points), rng.standard_normal(COUNT)], axis=1)
    half, variance = np.full(gains.shape, 0.1), np.array([2.0, 0.5])
    features = surrogate._features([at(point) for point in points], ())
    config = SurrogateConfig()
    for objective, chosen in enumerate(surrogate._fitted(features, gains, half, variance, config)):

        def likelihood(option: SurrogateConfig, m: int = objective) -> float:
            covariance = variance[m] * surrogate._kernel(features, option) + np.diag(half[:, m] ** 2)
            return float(multivariate_normal.logpdf(gains[:, m], mean=np.zeros(COUNT), cov=covariance))

        others = [
            likelihood(replace(config, knob=config.knob * stronger, knob_length=config.knob_length * longer))
            for stronger in (1, 15, 100)
            for longer in (1, 4, 10)
        ]
        assert likelihood(chosen) == pytest.approx(max(others))


def test_what_is_like_nothing_measured_is_expected_at_the_common_level_not_at_the_seed_s(
    rng: np.random.Generator,
) -> None:
    points, costs = rng.random((12, 3)), np.array([[5.0], *[[0.0]] * 11])  # a bad seed
    land, far, short = measured_at(points, costs), [at(np.full(3, 9.0))], SurrogateConfig(knob=10, fit=False, draws=999)
    expected = {level: sample(land, far, replace(short, level=level), rng).mean() for level in (0.0, 10.0)}
    assert expected[10.0] < 1.5
    assert expected[0.0] > 2.5


def test_the_reference_is_the_seed_or_a_bit_worse_than_the_front() -> None:
    seed = np.array([1.0, 1.0])
    assert reference(seed, np.empty((0, 2)), 0.1).tolist() == [1.0, 1.0]
    assert reference(seed, np.array([[0.0, 0.5], [0.5, 0.0]]), 0.1).tolist() == [1.0, 1.0]
    found = reference(seed, np.array([[0.0, 3.0], [0.5, 0.0]]), 0.1)
    assert found.tolist() == pytest.approx([1.0, 3.3])
    assert np.isfinite(reference(seed, np.array([[0.0, np.inf], [0.5, 0.0]]), 0.1)).all()


def test_a_child_that_gives_up_what_the_seed_has_counts_once_the_front_does() -> None:
    seed, front, child = np.zeros(2), np.array([[-1.0, 0.5], [0.0, 0.0]]), np.array([[-2.0, 0.4]])
    assert Unclaimed(front, seed).gains(child)[0] == 0.0
    assert Unclaimed(front, reference(seed, front, 0.1)).gains(child)[0] > 0.1


def test_a_leap_sets_every_knob_and_a_step_few() -> None:
    knobs = tree(np.full(20, 0.5)).knobs
    for leap, least, most in ((1.0, 20, 20), (0.0, 1, 12)):
        found = variations(knobs, [{}] * 50, VariationConfig(leap=leap), np.random.default_rng(3))
        assert least <= min(map(len, found)) <= max(map(len, found)) <= most
    leaps = variations(knobs, [{}] * 50, VariationConfig(leap=1.0), np.random.default_rng(3))
    values = np.array([[float(value) for value in found.values()] for found in leaps])
    assert 0.45 < values.mean() < 0.55
    assert values.min() < 0.02
    assert values.max() > 0.98


def test_who_does_not_compare_moves_makes_steps_only(rng: np.random.Generator) -> None:
    points = rng.random((12, 20))
    land, anywhere = measured_at(points, cost(points)), MoveConfig(variation=VariationConfig(leap=1.0))
    leaping = EvolvePolicy(EvolveConfig(moves=anywhere), {})
    stepping: list[Policy] = [
        RandomPolicy(anywhere, {}),
        Nsga2Policy(Nsga2Config(population_size=4, moves=anywhere), {}),
        EvolvePolicy(EvolveConfig(moves=anywhere, use_surrogate=False), {}),
    ]
    for policy, least, most in ((leaping, 20, 20), *((p, 1, 19) for p in stepping)):
        for number in range(20, 30):
            proposal = policy.propose(land.archive, (), number, np.random.default_rng(number))
            assert proposal is not None
            assert least <= len(proposal.knobs) <= most


def test_the_search_finds_the_good_corner_of_a_smooth_cube() -> None:
    """From the worst corner, one child at a time: closer than random points of the same number come."""
    distances = []
    for seed in range(4):
        points, policy = [np.ones(4)], EvolvePolicy(EvolveConfig(), {})
        land = measured_at(np.array(points), cost(np.array(points)))
        for number in range(1, 41):
            proposal = policy.propose(land.archive, (), number, np.random.default_rng([seed, number]))
            assert proposal is not None
            parent = points[int(proposal.parents[0][1:])].copy()
            for name, value in proposal.knobs.items():
                parent[int(name[-1])] = float(value)
            points.append(parent)
            land = measured_at(np.array(points), cost(np.array(points)))
        distances.append(min(float(point.sum()) for point in points))
    lucky = [np.random.default_rng(seed).random((40, 4)).sum(axis=1).min() for seed in range(4)]
    assert np.mean(distances) < 0.5 * np.mean(lucky)


def recipes(**expected: float) -> dict[str, Recipe]:
    """Two recipes that apply to any tree once; one says what it gains."""
    told = Recipe(name="told", summary="", components={"model": 1}, expected=expected)
    return {"silent": replace(told, name="silent", expected={}), "told": told}


def with_recipe(land: Landscape, name: str, cost: float) -> Archive:
    """The landscape's archive with one more child: the seed after a recipe."""
    proposal = Proposal(number=1, operator=Operator.RECIPE, parents=("c000000",), recipe=name)
    scored = Scored(samples={objective: (float(np.exp(cost)),) for objective in land.archive.objectives.names})
    seed = land.archive.candidates["c000000"]
    child = replace(seed, proposal=proposal, commit=f"{1:040x}", tree=f"{1:040x}", evaluation=scored)
    land.archive.add(child)
    return land.archive


def test_what_a_recipe_is_expected_to_gain_is_believed_until_it_is_measured() -> None:
    seed, rng = measured_at(np.ones((1, 1)), np.zeros((1, 2))), np.random.default_rng(0)
    descent, config = Descent(recipes(f0=8.0, f1=0.5)), SurrogateConfig(draws=4000)
    alike = [Point(frozenset({name}), {}) for name in ("told", "silent")]
    told, silent = sample(survey(seed.archive, descent), alike, config, rng).mean(axis=0)
    assert told == pytest.approx([-np.log(8), np.log(2)], abs=0.3)
    assert silent == pytest.approx([0, 0], abs=0.3)
    archive = with_recipe(seed, "told", cost=0.5)
    told, silent = sample(survey(archive, descent), alike, config, rng).mean(axis=0)
    assert told == pytest.approx([0.5, 0.5], abs=0.2)
    assert abs(silent).max() < 1


def test_the_recipe_that_promises_most_is_tried_first() -> None:
    seed = measured_at(np.ones((1, 1)), np.zeros((1, 2)))
    policy = EvolvePolicy(EvolveConfig(), recipes(f0=8.0))
    proposals = [policy.propose(seed.archive, (), 1, np.random.default_rng(n)) for n in range(20)]
    assert [proposal.recipe for proposal in proposals if proposal] == ["told"] * 20


def cost(points_NK: FloatArray) -> FloatArray:
    found: FloatArray = points_NK.sum(axis=1, keepdims=True)
    return found
