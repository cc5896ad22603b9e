"""The bandit finds the paying operator, forgets what stopped paying, and tries everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from search.bandit import BanditConfig, Pull, choose, scores

CONFIG = BanditConfig()
ARMS = ["recipe", "tune", "merge"]


def play(gains: dict[str, float], rounds: int, before: list[Pull] | None = None) -> list[Pull]:
    pulls = list(before or ())
    for _ in range(rounds):
        arm = choose(ARMS, pulls, CONFIG)
        pulls.append(Pull(arm=arm, gain=gains[arm], cost_s=6.0))
    return pulls


def test_it_converges_on_the_operator_that_pays() -> None:
    pulls = play({"recipe": 0.1, "tune": 1.0, "merge": 0.1}, 100)
    assert sum(p.arm == "tune" for p in pulls[-50:]) > 25


def test_every_operator_is_tried() -> None:
    assert {p.arm for p in play({"recipe": 1.0, "tune": 0.0, "merge": 0.0}, 20)} == set(ARMS)


def test_it_follows_a_change() -> None:
    before = play({"recipe": 1.0, "tune": 0.1, "merge": 0.1}, 60)
    after = play({"recipe": 0.0, "tune": 0.1, "merge": 1.0}, 60, before)[-30:]
    assert max(ARMS, key=lambda arm: sum(p.arm == arm for p in after)) == "merge"


def test_the_same_gain_at_less_cost_scores_higher() -> None:
    pulls = [Pull(arm="recipe", gain=1.0, cost_s=60.0), Pull(arm="tune", gain=1.0, cost_s=6.0)]
    assert scores(ARMS, pulls, BanditConfig(discount=1.0))["tune"] > scores(ARMS, pulls, CONFIG)["recipe"]


@given(st.lists(st.tuples(st.sampled_from(ARMS), st.floats(0, 1e6), st.floats(0, 1e4)), max_size=60))
def test_bounds_are_finite_and_positive(pulls: list[tuple[str, float, float]]) -> None:
    found = scores(ARMS, [Pull(arm=a, gain=g, cost_s=c) for a, g, c in pulls], CONFIG)
    assert set(found) == set(ARMS)
    assert all(0 <= value < 10 for value in found.values())
