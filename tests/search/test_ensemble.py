"""The choice between models finds who gains most for its price, stays fair to whom it knows little of, and is pure."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.search.ensemble import WORLDS, Model, share_of_best, simulate, thompson, uniform
from population.archive import Archive
from population.candidate import Candidate, Failure, Operator, Proposal
from population.evaluation import Rejected, Scored, Stage
from population.genome import Genome
from population.objectives import Direction, Objective, ObjectiveSet
from search.ensemble import EnsembleConfig, Trial, choose_model, gained, sampled_rates

CONFIG = EnsembleConfig()
CHOOSE = thompson(CONFIG)
SEEDS = range(500, 520)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("world", ["cheap is as good", "three alike but one", "five"])
def test_it_gets_more_for_the_same_dollars_than_taking_turns(world: str) -> None:
    models = WORLDS[world]
    ours = np.mean([share_of_best(models, CHOOSE, seed) for seed in SEEDS])
    turns = np.mean([share_of_best(models, uniform, seed) for seed in SEEDS])
    assert ours > turns * 1.1


def test_regret_falls() -> None:
    """Per dollar, the second half of a budget regrets less than the first one did."""
    first, second = 0.0, 0.0
    for seed in SEEDS:
        course = simulate(WORLDS["cheap is as good"], CHOOSE, rng(seed), budget=200.0)
        models = WORLDS["cheap is as good"]
        paid = np.cumsum([models[name].price for name in course.children])
        half = int(np.searchsorted(paid, paid[-1] / 2))
        first += course.regret[half] / paid[half]
        second += (course.regret[-1] - course.regret[half]) / (paid[-1] - paid[half])
    assert second < 0.6 * first


def test_a_dear_model_is_preferred_where_it_is_worth_its_price() -> None:
    models = {"dear": Model(chance=0.5, gain=4.0, price=4.0), "cheap": Model(chance=0.05, gain=1.0, price=0.5)}
    late = Counter(name for s in SEEDS for name in simulate(models, CHOOSE, rng(s)).children[-10:])
    dollars = {name: count * models[name].price for name, count in late.items()}
    assert dollars["dear"] > 4 * dollars["cheap"]


def test_a_whole_batch_without_results_is_spread() -> None:
    """Feedback is late: 12 children are in flight before the first one ends."""
    flying: Counter[str] = Counter()
    for number in range(12):
        flying[choose_model({"a": 1.0, "b": 1.0, "c": 1.0}, [], flying, CONFIG, rng(number))] += 1
    assert set(flying) == {"a", "b", "c"} and min(flying.values()) >= CONFIG.trials


def test_every_model_gets_its_trials_before_results_decide() -> None:
    trials = [Trial(model="a", gain=1.0, cost=1.0)] * 5
    firsts = {choose_model({"a": 1.0, "b": 1.0}, trials, {"b": 1}, CONFIG, rng(seed)) for seed in range(20)}
    assert firsts == {"b"}


def test_a_share_is_one_of_the_money_and_0_is_never() -> None:
    trials = [Trial(model=m, gain=0.0, cost=c) for m, c in (("dear", 9.0), ("cheap", 1.0)) for _ in range(2)]
    always = EnsembleConfig(explore=1.0)
    drawn = Counter(
        choose_model({"dear": 1.0, "cheap": 1.0, "off": 0.0}, trials, {}, always, rng(s)) for s in range(400)
    )
    assert drawn["off"] == 0
    assert 0.05 < drawn["dear"] / 400 < 0.16, "as many dollars for either: one child of ten"


def test_nothing_that_pays_is_starved_for_ever() -> None:
    """What was bad and has become good is found again, because old children fade."""
    trials = [Trial(model="a", gain=1.0, cost=1.0)] * 40 + [Trial(model="b", gain=0.0, cost=1.0)] * 10
    trials += [Trial(model="a", gain=0.0, cost=1.0)] * 120
    now = Counter(
        choose_model({"a": 1.0, "b": 1.0}, trials, {}, EnsembleConfig(discount=0.95), rng(s)) for s in range(100)
    )
    assert now["b"] > 50


CHILDREN = st.lists(
    st.builds(Trial, model=st.sampled_from("abc"), gain=st.floats(0, 1e6), cost=st.floats(0, 1e4)), max_size=60
)


@given(CHILDREN, st.integers(0, 1000))
def test_the_same_children_give_the_same_choice(trials: list[Trial], seed: int) -> None:
    shares = {"a": 1.0, "b": 0.5, "c": 2.0}
    first = choose_model(shares, trials, {"a": 2}, CONFIG, rng(seed))
    assert first == choose_model(shares, list(trials), {"a": 2}, CONFIG, rng(seed))
    assert first in shares
    rates = sampled_rates(tuple(shares), trials, CONFIG, rng(seed))
    assert all(np.isfinite(rate) and rate >= 0 for rate in rates.values())


def test_gains_are_what_each_child_added_in_the_order_in_which_they_ended() -> None:
    archive = Archive(ObjectiveSet((Objective(name="tok", direction=Direction.MAX, unit=None),)))
    assert gained(archive) == {}
    for number, speed in ((0, 10.0), (2, 20.0), (1, 15.0), (3, 40.0)):
        operator = Operator.AGENT if number else Operator.SEED
        archive.add(
            Candidate(
                proposal=Proposal(number=number, operator=operator),
                commit=f"c{number}",
                tree=f"t{number}",
                genome=Genome(),
                evaluation=Scored(samples={"tok": (speed,) * 4}),
                cost_s=1.0,
            )
        )
    rejected = Rejected(stage=Stage.MUTATE, reason="no idea")
    archive.add(Failure(proposal=Proposal(number=4, operator=Operator.AGENT), evaluation=rejected, cost_s=1.0))
    found = gained(archive)
    assert list(found) == [0, 2, 1, 3, 4]
    assert found[2] > 0 and found[3] > 0, "each was the best when it ended"
    assert found[0] == found[1] == found[4] == 0.0
    assert found[2] == pytest.approx(np.log(2)) and found[3] == pytest.approx(np.log(2))
