"""Decides how likely a proposal is to become a scored candidate, from what happened to those like it.

Beta-Bernoulli, sampled (Thompson). A recipe whose answers the judge found wrong is probably a wrong idea rather than
a mishap: with every tree on which it was wrong it is less likely to be tried on another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search.history import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceConfig:
    """Of the success probability."""

    prior_success: float = 3.0
    """Pseudo-successes of an untried recipe or operator."""
    prior_failure: float = 1.0
    """Pseudo-failures of an untried recipe or operator."""
    wrong_weight: float = 0.05
    """Factor on the probability for every tree on which the judge found a recipe's answers wrong, while it has never
    passed, 0..1; 0 never tries it again, 1 treats a wrong answer as a mishap."""


def chance(seen: Tally | None, config: ConfidenceConfig, rng: np.random.Generator) -> float:
    """A sampled probability 0..1 that the next child of a kind is scored, from what became of those `seen`."""
    tally = seen or Tally()
    successes, failures = max(config.prior_success, 0.01) + tally.passed, max(config.prior_failure, 0.01) + tally.failed
    drawn = float(rng.beta(successes, failures))
    return drawn if tally.passed else drawn * config.wrong_weight ** len(tally.wrong)
