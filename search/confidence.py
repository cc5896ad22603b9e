"""Decides how likely a proposal is to become a scored candidate, from what happened to those like it.

Beta-Bernoulli, sampled (Thompson). A recipe whose answers the judge found wrong is probably a wrong idea rather than
a mishap: with every tree on which it was wrong it is less likely to be tried on another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from population.candidate import Child
from population.evaluation import Rejected, Stage
from search.landscape import WRONG, scored


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


def chance(children: Sequence[Child], config: ConfidenceConfig, rng: np.random.Generator) -> float:
    """A sampled probability 0..1 that the next child like `children` is scored."""
    passed = sum(scored(child) for child in children)
    wrong = {c.proposal.parents for c in children if isinstance(c.evaluation, Rejected) and c.evaluation.stage in WRONG}
    failed = sum(isinstance(c.evaluation, Rejected) and c.evaluation.stage is not Stage.DEDUPE for c in children)
    drawn = float(rng.beta(max(config.prior_success, 0.01) + passed, max(config.prior_failure, 0.01) + failed))
    return drawn if passed else drawn * config.wrong_weight ** len(wrong)
