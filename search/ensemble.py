"""Decides which of several models writes the next child: by what each has gained for its price so far, by chance.

Thompson sampling by weighted bootstrap (Rubin 1981; as a bandit: Eckles & Kaptein 2014): every child that has ended
gets a random weight, and the model with the largest ratio of weighted gain to weighted cost is chosen. A ratio of sums,
since what counts is what the whole budget buys, and most children gain nothing. Older children fade, as in
`search.bandit`. A bound would send a whole batch to one model; random choices differ, so children in flight need no
guess at their results. No state is kept: the same children and rng give the same choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from population.archive import Archive
from population.candidate import candidate_id
from search.indicators import hypervolume, reference

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_REACH = 0.1
"""As `EvolveConfig.reach`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleConfig:
    """Of the choice between models. Defaults were chosen with `benchmarks/search/ensemble.py`."""

    trials: int = 2
    """Children, ended or in flight, that every model gets before results decide."""
    explore: float = 0.05
    """Probability 0..1 that a model is drawn by the shares alone, whatever it has gained."""
    discount: float = 0.99
    """Weight of a child relative to the next younger one, 0 < discount <= 1; 1 never forgets."""
    doubt: float = 6.0
    """How many imagined children every model has from the start, that gain as those of all models do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One child that has ended: which model wrote it, what it gained (hypervolume, >= 0), what it cost (>= 0).

    Costs are in dollars or in tokens, all of them in the same.
    """

    model: str
    gain: float
    cost: float


def choose_model(
    shares: Mapping[str, float],
    trials: Sequence[Trial],
    flying: Mapping[str, int],
    config: EnsembleConfig,
    rng: np.random.Generator,
) -> str:
    """The model of the next child.

    Args:
        shares: model → its part of what is spent while nothing is known; those of 0 are never drawn, not all are 0.
        trials: children that have ended, oldest first.
        flying: model → its children in flight.
    """
    drawn = {model: share for model, share in shares.items() if share > 0}
    seen = {model: flying.get(model, 0) + sum(trial.model == model for trial in trials) for model in drawn}
    fresh = {model: share for model, share in drawn.items() if seen[model] < config.trials}
    if fresh:
        return _by_share(fresh, rng)
    seen_costs = _costs(tuple(drawn), trials, config)
    if rng.random() < config.explore:  # a share is one of the budget, and a dear child takes more of it
        return _by_share({model: share / seen_costs[model] for model, share in drawn.items()}, rng)
    rates = sampled_rates(tuple(drawn), trials, config, rng)
    return max(drawn, key=lambda model: rates[model])


def sampled_rates(
    models: Sequence[str], trials: Sequence[Trial], config: EnsembleConfig, rng: np.random.Generator
) -> dict[str, float]:
    """Model → one draw of what it gains per unit of cost, given its children and the doubt about them."""
    weights = _weights(trials, config)
    gains, costs = np.array([trial.gain for trial in trials]), np.array([trial.cost for trial in trials])
    wins = gains > 0
    usual = float(np.average(gains[wins], weights=weights[wins])) if wins.any() else 1.0
    chance = (float(weights[wins].sum()) + 1.0) / (float(weights.sum()) + 2.0)
    typical, found = _costs(models, trials, config), {}
    for model in models:
        own = _own(model, trials)
        mass = rng.gamma(weights[own]) if own.any() else np.zeros(0)
        won, lost = rng.gamma(config.doubt * chance), rng.gamma(config.doubt * (1.0 - chance))
        # Costs differ far less from child to child than gains do: imagined children cost what the real ones did.
        paid = float(mass @ costs[own]) + (won + lost) * typical[model]
        found[model] = (float(mass @ gains[own]) + won * usual) / max(paid, 1e-12)
    return found


def gained(archive: Archive) -> dict[int, float]:
    """Child number → hypervolume that it added when it ended, in that order, by what is known of all of them now."""
    if not archive.is_scored(candidate_id(0)):
        return {}
    reference_M = reference(archive.costs(candidate_id(0)), archive.costs_of(archive.front), _REACH)
    front, volume, found = np.empty((0, len(reference_M))), 0.0, {}
    for number in archive.children:
        before = volume
        if archive.is_scored(candidate_id(number)):
            costs = archive.costs(candidate_id(number))
            if not (front <= costs).all(axis=1).any():
                front = np.vstack([front[~(costs <= front).all(axis=1)], costs])
                volume = hypervolume(front, reference_M)
        found[number] = max(0.0, volume - before)
    return found


def _weights(trials: Sequence[Trial], config: EnsembleConfig) -> FloatArray:
    weights: FloatArray = np.maximum(np.power(config.discount, np.arange(len(trials))[::-1], dtype=float), 1e-12)
    return weights


def _costs(models: Sequence[str], trials: Sequence[Trial], config: EnsembleConfig) -> dict[str, float]:
    """Model → mean cost of its children; of everybody's, where it has none."""
    weights, costs = _weights(trials, config), np.array([trial.cost for trial in trials])
    found = {}
    for model in models:
        own = _own(model, trials)
        mask = own if own.any() else np.ones(len(trials), dtype=bool)
        found[model] = max(1e-12, float(np.average(costs[mask], weights=weights[mask]))) if mask.any() else 1.0
    return found


def _own(model: str, trials: Sequence[Trial]) -> BoolArray:
    return np.array([trial.model == model for trial in trials], dtype=np.bool_)


def _by_share(shares: Mapping[str, float], rng: np.random.Generator) -> str:
    names = list(shares)
    share = np.array([shares[name] for name in names])
    return names[int(rng.choice(len(names), p=share / share.sum()))]
