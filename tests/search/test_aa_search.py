"""A search in which every child is a no-op promises much by its best samples, and claims nothing.

benchmarks/statistics/aa_search.py runs the same with 200 children and 200 seeds.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from benchmarks.statistics.aa_search import LIMIT, TARGET, Outcome, run
from benchmarks.statistics.aa_world import claim
from benchmarks.statistics.noise import Machine
from population.objectives import load_objectives
from vibeserve.claims import Verdict

OBJECTIVES = load_objectives(TARGET)


@cache
def runs() -> tuple[Outcome, ...]:
    return tuple(run(OBJECTIVES, 40, seed) for seed in range(12))


def test_the_claimed_gain_of_an_aa_search_is_within_half_a_percent() -> None:
    stated = np.array([outcome.stated for outcome in runs()])
    assert np.median(stated) == 1.0
    assert stated.mean() <= LIMIT


def test_the_best_sample_of_an_aa_search_is_luck_that_the_claim_does_not_repeat() -> None:
    naive = np.median([outcome.best_child for outcome in runs()])
    shown = np.median([outcome.claims[0].central for outcome in runs() if outcome.claims])
    assert naive > 1.15
    assert shown < 1.08


def test_measuring_again_shrinks_the_luck_of_the_front() -> None:
    before, after = (np.median([outcome.winner[count] for outcome in runs()]) - 1 for count in (0, 50))
    assert after < 0.7 * before


def test_a_claim_shows_a_gain_that_is_there() -> None:
    noise_M = np.array([o.relative_noise for o in OBJECTIVES])
    found = [claim(OBJECTIVES, Machine(noise_M, np.random.default_rng([i, 4])), "c", gain=1.5) for i in range(20)]
    better = [c.verdict(name) is Verdict.BETTER for c in found for name in OBJECTIVES.names]
    assert np.mean(better) >= 0.9
    stated = [c.claimed(name) or 1.0 for c in found for name in OBJECTIVES.names]
    assert np.mean(np.array(stated) <= 1.5) >= 0.95
