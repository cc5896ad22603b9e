"""What a policy remembers changes no answer, and what it looks at is bounded without losing the front."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from population import dominance
from population.archive import Archive
from population.candidate import Candidate, Child, Failure, Operator, Proposal
from population.dominance import Points
from population.evaluation import Evaluation, Rejected, Stage
from search import racing
from search.evolve import EvolveConfig, EvolvePolicy
from search.indicators import Unclaimed, hypervolume
from search.landscape import FRONT_LIMIT, POOL_LIMIT, spread, survey
from search.pedigree import Descent
from tests.contracts.policy_contract import OBJECTIVES, RECIPES, SEED, applied, archive, candidate, measured, wrong

Step = Child | tuple[str, Evaluation]


def run(seed: int, steps: int) -> list[Step]:
    """A random course of children (scored, rejected, failed) and re-measurements (some rejected)."""
    rng, made, known = np.random.default_rng(seed), list[Step]([SEED]), ["c000000"]
    for number in range(1, steps):
        parent, roll = known[int(rng.integers(len(known)))], rng.random()
        if roll < 0.2:
            again = measured(*values(rng)) if rng.random() < 0.7 or parent == "c000000" else wrong()
            made.append((parent, again))
            continue
        recipe = ("cache", "order", "window")[int(rng.integers(3))]
        knobs = {"scheduler.batch": int(rng.integers(1, 65))}
        tuned = Proposal(number=number, operator=Operator.TUNE, parents=(parent,), knobs=knobs)
        proposal = applied(number, parent, recipe) if roll < 0.5 else tuned
        if roll > 0.9:
            dropped = Rejected(stage=Stage.DEDUPE, reason="twin")
            made.append(Failure(proposal=proposal, evaluation=dropped, cost_s=1.0))
            continue
        evaluation: Evaluation = wrong() if roll > 0.8 else measured(*values(rng))
        made.append(candidate(proposal, evaluation, (), int(rng.integers(1, 65))))
        if roll <= 0.8:
            known.append(f"c{number:06d}")
    return made


def values(rng: np.random.Generator) -> tuple[float, float]:
    tput, ttft = np.exp(rng.standard_normal(2))
    return float(10 * tput), float(1000 * ttft)


def apply(made: Archive, step: Step) -> None:
    if isinstance(step, Candidate | Failure):
        made.add(step)
    else:
        made.remeasure(*step)


def pending(made: Archive, count: int, seed: int) -> list[Proposal]:
    rng, scored = np.random.default_rng(seed), made.scored
    parents = [scored[int(rng.integers(len(scored)))] for _ in range(count)]
    return [applied(1000 + i, parent, "order") for i, parent in enumerate(parents)]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 7), st.booleans())
def test_an_archive_that_was_watched_gives_the_same_proposals(
    seed: int, steps: int, every: int, use_bandit: bool
) -> None:
    """Asked now and then while it grows, or built from the ledger in one go and seen for the first time."""
    config = EvolveConfig(use_bandit=use_bandit, population_size=6)
    course, watched, policy = run(seed, steps), Archive(OBJECTIVES), EvolvePolicy(config, RECIPES)
    for at, step in enumerate(course):
        apply(watched, step)
        if at % every == 0:
            flying = pending(watched, at % 4, at)
            policy.propose(watched, flying, 500 + at, np.random.default_rng(at))
            policy.remeasure(watched, flying[0].parents if flying else (), np.random.default_rng(at))
    replayed, fresh = Archive(OBJECTIVES), EvolvePolicy(config, RECIPES)
    for step in course:
        apply(replayed, step)
    flying = pending(replayed, 3, seed)
    answers = [
        (
            p.propose(made, flying, 999, np.random.default_rng(seed)),
            p.remeasure(made, (), np.random.default_rng(seed)),
            made.front,
            racing.bar(made),
        )
        for p, made in ((policy, watched), (fresh, replayed))
    ]
    assert answers[0] == answers[1]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_contenders_are_those_of_intervals_half_as_wide(seed: int, steps: int) -> None:
    made = Archive(OBJECTIVES)
    for step in run(seed, steps):
        apply(made, step)
        ids = made.scored
        rows = np.array([made.row(i) for i in ids], dtype=np.intp)
        points = made.points[rows]
        low_NM, high_NM = (points.costs_NM + points.low_NM) / 2, (points.costs_NM + points.high_NM) / 2
        found = {ids[row] for row in dominance.front(Points(points.costs_NM, low_NM, high_NM))}
        assert set(racing.contenders(made)) == found - set(made.front)


def test_what_is_in_flight_is_forgotten_when_it_landed() -> None:
    made, descent = archive([SEED]), Descent(RECIPES)
    proposal = applied(1, "c000000", "cache")
    key = ("cache", ("c000000",))
    assert key not in survey(made, descent).taken([])
    assert key in survey(made, descent).taken([proposal])
    assert key in survey(made, descent).taken([proposal, applied(2, "c000000", "cache")])
    assert key in survey(made, descent).taken([applied(2, "c000000", "cache")])
    assert key not in survey(made, descent).taken([])


def test_a_large_archive_shows_the_front_and_the_best_of_the_rest() -> None:
    """The bound of the pool: all of the front (up to its limit); nobody left out is better on the whole."""
    rng, children = np.random.default_rng(0), [SEED]
    for number in range(1, 2000):
        proposal = Proposal(number=number, operator=Operator.TUNE, parents=("c000000",))
        children.append(candidate(proposal, measured(*values(rng))))
    made = archive(children)
    land = survey(made, Descent(RECIPES))
    assert len(land.pool) == POOL_LIMIT
    assert set(land.front_F.tolist()) == set(made.front_rows.tolist()) <= set(land.pool.tolist())
    totals = land.points.costs_NM.sum(axis=1)
    front = set(land.front_F.tolist())
    chosen = [row for row in land.pool.tolist() if row not in front]
    left_out = [row for row in range(len(totals)) if row not in front and row not in chosen]
    assert totals[chosen].max() <= totals[left_out].min()
    few = survey(archive(children[:POOL_LIMIT]), Descent(RECIPES))
    assert few.pool.tolist() == list(range(POOL_LIMIT))


@pytest.mark.parametrize("objectives", [1, 2, 3, 5])
def test_a_spread_keeps_the_ends_and_leaves_no_hole(objectives: int) -> None:
    costs = np.random.default_rng(objectives).random((1000, objectives))
    chosen = spread(costs, np.arange(1000), FRONT_LIMIT)
    assert len(set(chosen.tolist())) == len(chosen) <= FRONT_LIMIT
    step = 1000 // (FRONT_LIMIT // objectives) + 2
    for m in range(objectives):
        order = np.argsort(costs[:, m], kind="stable").tolist()
        places = sorted(order.index(row) for row in chosen.tolist())
        assert places[0] == 0
        assert places[-1] == 999
        assert max(np.diff(places)) <= step
    assert spread(costs, np.arange(100), FRONT_LIMIT).tolist() == list(range(100))


COST = st.one_of(st.floats(-2, 1.5), st.sampled_from([0.0, 0.5, 1.0]))


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 4), st.data())
def test_gains_are_differences_of_hypervolume(objectives: int, data: st.DataObject) -> None:
    point = st.lists(COST, min_size=objectives, max_size=objectives)
    front = np.array(data.draw(st.lists(point, max_size=12)), dtype=np.float64).reshape(-1, objectives)
    children = np.array(data.draw(st.lists(point, min_size=1, max_size=6)), dtype=np.float64)
    reference = np.ones(objectives)
    gains = Unclaimed(front, reference).gains(children)
    before = hypervolume(front, reference)
    for child, gain in zip(children, gains, strict=True):
        assert gain == pytest.approx(hypervolume(np.vstack([front, child]), reference) - before, abs=1e-9)
