"""Decides what a proposal would probably yield: a Gaussian process over pedigrees that transfers gains between trees.

A tree is the set of its recipes, knob values and free edits. In log-cost space gains add up, so the kernel has a linear
part (a recipe's gain on one parent predicts its gain on another) and an interaction part that decays with the number
of recipes that differ (batching pays only once there is a KV cache; a diffusion kernel on sets, Kondor & Lafferty
2002; linear plus interaction as in BOCS, Baptista & Poloczek 2018). Untried recipes keep the full prior width, which is
the optimism that makes a Thompson sample (Thompson 1933; Bradford et al. 2018 for hypervolume) try them. Where a recipe
says what it is expected to gain, that is its prior mean; what is measured corrects it on every tree that has it.

How much knobs matter, and over which distance, differs from target to target and between objectives. It is chosen per
objective by the likelihood of what was measured (type II; Rasmussen & Williams 2006, ch. 5) from a few combinations.

Axis N: training members, C: proposals, T: both, M: objectives, D: genes, K: knobs, H: combinations.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from search.history import Point
from search.landscape import Landscape
from search.survival import finite

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateConfig:
    """Of the Gaussian process; variances are shares of the squared scale of the gains seen so far."""

    linear: float = 1.0
    """Variance of one recipe's additive gain."""
    interaction: float = 0.6
    """Variance of what only the combination gives."""
    decay: float = 2.0
    """Number of differing recipes over which interaction is forgotten by a factor e."""
    knob_length: float = 0.5
    """Least distance in a knob's unit range over which its effect is forgotten by a factor e; see `fit`."""
    knob: float = 0.1
    """Least variance of the effect of knobs that are not said to trade objectives; see `fit`."""
    fit: bool = True
    """Whether `knob` (times 1, 15 or 100) and `knob_length` (times 1, 4 or 10) are the most likely ones, from eight
    training members on; otherwise, and before, they are as they say."""
    level: float = 10.0
    """Variance of what all trees share. 0: what is like nothing measured is expected to cost what the seed costs."""
    dial: float = 0.3
    """Variance of the effect of dials: knobs that are declared to trade one objective for another."""
    least_scale: float = 0.1
    """Smallest scale of gains that is believed before any was seen (log ratio)."""
    draws: int = 16
    """Joint samples per proposal, whose gains are averaged: 1 is Thompson sampling, many are expected improvement."""
    members: int = 64
    """Training members at most: the front, then the youngest."""


_STRONGER, _LONGER = (1.0, 15.0, 100.0), (1.0, 4.0, 10.0)
"""Factors on the variance and on the length of knobs among which the likelihood chooses."""
_FIT_FROM = 8
"""Training members below which a likelihood says little."""


@dataclass(frozen=True, slots=True)
class _Features:
    """Trees in numbers, the N training members first."""

    has_ND: FloatArray
    moved: FloatArray
    """Distance (N, N) by knobs that are no dials, and `turned` by dials."""
    turned: FloatArray

    def first(self, count: int) -> _Features:
        return _Features(self.has_ND[:count], self.moved[:count, :count], self.turned[:count, :count])


def sample(land: Landscape, points: Sequence[Point], config: SurrogateConfig, rng: np.random.Generator) -> FloatArray:
    """Joint Thompson samples (draws, C, M) of the costs of hypothetical trees."""
    rows = _training(land, config.members)
    trees = [*(land.at(land.names[row]) for row in rows), *points]
    features, count = _features(trees, land.history.dials), len(rows)
    expected_TM = _expected(land, trees)
    costs_NM = np.clip(land.points.costs_NM[rows], -50, 50)
    base_M = costs_NM[0]
    width_NM = finite(land.points.high_NM[rows]) - finite(land.points.low_NM[rows])
    half_NM = np.clip(width_NM, 0.02, 2.0) / 3.92
    variance_M = np.maximum(config.least_scale, _scale(land, rows)) ** 2
    gains_NM = costs_NM - base_M - expected_TM[:count]
    samples = np.empty((config.draws, len(points), costs_NM.shape[1]))
    kernels: dict[SurrogateConfig, FloatArray] = {}
    for objective, chosen in enumerate(_fitted(features.first(count), gains_NM, half_NM, variance_M, config)):
        if chosen not in kernels:
            kernels[chosen] = _kernel(features, chosen)
        kernel = variance_M[objective] * kernels[chosen]
        noisy = kernel[:count, :count] + np.diag(half_NM[:, objective] ** 2)
        cross = kernel[:count, count:]
        weights = np.linalg.solve(noisy, cross)
        covariance = kernel[count:, count:] - cross.T @ weights
        mean = base_M[objective] + expected_TM[count:, objective] + weights.T @ gains_NM[:, objective]
        samples[:, :, objective] = _draw(mean, covariance, config.draws, rng)
    return samples


def _fitted(
    features: _Features, gains_NM: FloatArray, half_NM: FloatArray, variance_M: FloatArray, config: SurrogateConfig
) -> list[SurrogateConfig]:
    """The config under which each objective's gains are most likely."""
    if not config.fit or len(gains_NM) < _FIT_FROM or features.moved.max() == features.turned.max() == 0.0:
        return [config] * gains_NM.shape[1]
    options = [
        replace(config, knob=config.knob * stronger, knob_length=config.knob_length * longer)
        for stronger in _STRONGER
        for longer in _LONGER
    ]
    count = len(gains_NM)
    bordered_HNN = np.empty((len(options), count + 1, count + 1))
    kernel_HNN = np.stack([_kernel(features, option) for option in options])
    found = []
    for gains_N, half_N, variance in zip(gains_NM.T, half_NM.T, variance_M, strict=True):
        # The Cholesky root of a covariance that is bordered by the gains has the whitened gains as its last row; the
        # corner must be above their sum of squares.
        bordered_HNN[:, :-1, :-1] = variance * kernel_HNN + np.diag(half_N**2)
        bordered_HNN[:, -1, :-1] = bordered_HNN[:, :-1, -1] = gains_N
        bordered_HNN[:, -1, -1] = 1.0 + gains_N @ gains_N / half_N.min() ** 2
        root_HNN = np.linalg.cholesky(bordered_HNN)
        spread_H = np.log(np.diagonal(root_HNN, axis1=1, axis2=2)[:, :-1]).sum(axis=1)
        found.append(options[int(np.argmin(0.5 * np.square(root_HNN[:, -1, :-1]).sum(axis=1) + spread_H))])
    return found


def _expected(land: Landscape, trees: Sequence[Point]) -> FloatArray:
    """What the recipes of each tree say that they change of its costs (T, M)."""
    names = [objective.name.partition("@")[0] for objective in land.archive.objectives]
    recipes = land.descent.recipes
    change = {
        gene: -np.log([recipes[gene].expected.get(name, 1.0) for name in names])
        for gene in set().union(*(tree.genes for tree in trees)) & recipes.keys()
    }
    nothing = np.zeros(len(names))
    return np.array([sum((change[gene] for gene in tree.genes if gene in change), nothing) for tree in trees])


def _training(land: Landscape, limit: int) -> npt.NDArray[np.intp]:
    if land.archive.scored_count <= limit:
        return np.array(sorted(land.youngest(limit)), dtype=np.intp)
    front = land.front_F[-limit // 2 :].tolist()
    return np.array(sorted({land.first, *front, *land.youngest(limit - len(front))}), dtype=np.intp)


def _features(points: Sequence[Point], dials: Container[str]) -> _Features:
    genes = {gene: i for i, gene in enumerate(sorted(set().union(*(p.genes for p in points))))}
    has_ND = np.zeros((len(points), len(genes)))
    for row, p in enumerate(points):
        has_ND[row, [genes[g] for g in p.genes]] = 1.0
    names = sorted(set().union(*(p.knobs for p in points)))
    # A tree without the knob: any constant keeps the kernel positive.
    units_NK = np.array([[p.knobs.get(name, 0.5) for name in names] for p in points]).reshape(len(points), len(names))
    dials_K = np.array([name in dials for name in names], dtype=bool)
    return _Features(has_ND, _apart(units_NK[:, ~dials_K]), _apart(units_NK[:, dials_K]))


def _kernel(features: _Features, config: SurrogateConfig) -> FloatArray:
    shared = features.has_ND @ features.has_ND.T
    size = features.has_ND.sum(axis=1)
    differing = size[:, None] + size[None, :] - 2 * shared
    length = max(config.knob_length, 1e-3)
    similar = np.exp(-differing / max(config.decay, 1e-3))
    # Centred on the empty set (the seed, whose gain is 0 by definition).
    alone = np.exp(-size / max(config.decay, 1e-3))
    together = similar - np.outer(alone, alone)
    kernel: FloatArray = (
        config.level
        + config.linear * shared
        + config.interaction * together
        + config.knob * similar * np.exp(-features.moved / length)
        + config.dial * similar * np.exp(-features.turned / length)
    )
    return kernel


def _apart(units_NK: FloatArray) -> FloatArray:
    """Sum of the distances (N, N) in all knobs; 0 without any."""
    found: FloatArray = cdist(units_NK, units_NK, "cityblock") if units_NK.shape[1] else np.zeros((len(units_NK),) * 2)
    return found


def _scale(land: Landscape, rows: npt.NDArray[np.intp]) -> FloatArray:
    """Root mean square (M,) of the log gains of children over their parents; 1 where none is finite."""
    archive, costs_NM = land.archive, land.points.costs_NM
    parents = [(row, archive.candidates[land.names[row]].proposal.parents) for row in rows.tolist()]
    pairs = [(row, archive.row(p[0])) for row, p in parents if p and archive.is_scored(p[0])]
    if not pairs:
        return np.ones(costs_NM.shape[1])
    children, before = np.array(pairs).T
    with np.errstate(invalid="ignore"):
        gains_PM = costs_NM[children] - costs_NM[before]
    known_PM = np.isfinite(gains_PM)
    count_M = known_PM.sum(axis=0)
    squares_M = np.where(known_PM, gains_PM, 0.0) ** 2
    return np.where(count_M > 0, np.sqrt(squares_M.sum(axis=0) / np.maximum(count_M, 1)), 1.0)


def _draw(mean: FloatArray, covariance: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    jitter = 1e-6 * max(1.0, float(np.trace(covariance)) / max(1, len(mean)))
    root = np.linalg.cholesky(covariance + jitter * np.eye(len(mean)))
    drawn: FloatArray = mean + rng.standard_normal((draws, len(mean))) @ root.T
    return drawn
