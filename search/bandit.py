"""Decides which operator to try next: an adaptive bandit on hypervolume gain per second, recomputed from the archive.

Discounted UCB (Garivier & Moulines 2011) on rewards scaled to the best recent one, as in adaptive operator selection
(Fialho et al. 2010): the operator that pays changes as the search goes on, so old pulls fade. No state is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """One finished child: which arm made it, what it gained (hypervolume, >= 0), what it cost (seconds, > 0)."""

    arm: str
    gain: float
    cost_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BanditConfig:
    """Of the discounted UCB."""

    discount: float = 0.95
    """Weight of a pull relative to the next younger one, 0 < discount <= 1; 1 never forgets."""
    exploration: float = 0.5
    """Width of the confidence term; 0 is greedy."""
    prior_reward: float = 0.5
    """Scaled reward 0..1 that every arm is believed to give before its first pull, at the weight of one pull."""


def scores(arms: Sequence[str], pulls: Sequence[Pull], config: BanditConfig) -> dict[str, float]:
    """Upper confidence bound of every arm's scaled reward. `pulls` are oldest first."""
    rates = [pull.gain / max(pull.cost_s, 1e-9) for pull in pulls]
    weights = [config.discount ** (len(pulls) - 1 - i) for i in range(len(pulls))]
    best = max((rate * weight for rate, weight in zip(rates, weights, strict=True)), default=0.0)
    counts = dict.fromkeys(arms, 1.0)
    sums = dict.fromkeys(arms, config.prior_reward)
    for pull, rate, weight in zip(pulls, rates, weights, strict=True):
        if pull.arm in counts:
            counts[pull.arm] += weight
            sums[pull.arm] += weight * (min(1.0, rate / best) if best > 0 else 0.0)
    total = math.log(1.0 + sum(counts.values()))
    return {arm: sums[arm] / counts[arm] + config.exploration * math.sqrt(total / counts[arm]) for arm in arms}


def choose(arms: Sequence[str], pulls: Sequence[Pull], config: BanditConfig) -> str:
    """The arm with the highest bound; ties go to the first."""
    bounds = scores(arms, pulls, config)
    return max(arms, key=lambda arm: bounds[arm])
