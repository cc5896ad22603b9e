"""Decides what a proposal would probably yield: a Gaussian process over pedigrees that transfers gains between trees.

A tree is the set of its recipes, knob values and free edits. In log-cost space gains add up, so the kernel has a linear
part (a recipe's gain on one parent predicts its gain on another) and an interaction part that decays with the number
of recipes that differ (batching pays only once there is a KV cache; a diffusion kernel on sets, Kondor & Lafferty
2002; linear plus interaction as in BOCS, Baptista & Poloczek 2018). Untried recipes keep the full prior width, which is
the optimism that makes a Thompson sample (Thompson 1933; Bradford et al. 2018 for hypervolume) try them.

Axis N: training members, C: proposals, M: objectives, D: genes, K: knobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """Distance in a knob's unit range over which its effect is forgotten by a factor e."""
    knob: float = 0.1
    """Variance of the effect of knobs that are not said to trade objectives."""
    dial: float = 0.3
    """Variance of the effect of dials: knobs that are declared to trade one objective for another."""
    least_scale: float = 0.1
    """Smallest scale of gains that is believed before any was seen (log ratio)."""
    draws: int = 16
    """Joint samples per proposal, whose gains are averaged: 1 is Thompson sampling, many are expected improvement."""
    members: int = 64
    """Training members at most: the front, then the youngest."""


def sample(land: Landscape, points: Sequence[Point], config: SurrogateConfig, rng: np.random.Generator) -> FloatArray:
    """Joint Thompson samples (draws, C, M) of the costs of hypothetical trees."""
    rows = _training(land, config.members)
    known = [land.at(land.names[row]) for row in rows]
    names = sorted(set().union(*(p.knobs for p in (*known, *points))))
    genes, units = _features([*known, *points], names)
    kernel = _kernel(genes, units, np.array([name in land.history.dials for name in names], dtype=bool), config)
    count = len(known)
    costs_NM = np.clip(land.points.costs_NM[rows], -50, 50)
    base_M = costs_NM[0]
    width_NM = finite(land.points.high_NM[rows]) - finite(land.points.low_NM[rows])
    half_NM = np.clip(width_NM, 0.02, 2.0) / 3.92
    scale_M = np.maximum(config.least_scale, _scale(land, rows))
    samples = np.empty((config.draws, len(points), costs_NM.shape[1]))
    for objective in range(costs_NM.shape[1]):
        gains = costs_NM[:, objective] - base_M[objective]
        variance = scale_M[objective] ** 2
        noisy = variance * kernel[:count, :count] + np.diag(half_NM[:, objective] ** 2)
        cross = variance * kernel[:count, count:]
        weights = np.linalg.solve(noisy, cross)
        covariance = variance * kernel[count:, count:] - cross.T @ weights
        samples[:, :, objective] = base_M[objective] + _draw(weights.T @ gains, covariance, config.draws, rng)
    return samples


def _training(land: Landscape, limit: int) -> npt.NDArray[np.intp]:
    if land.archive.scored_count <= limit:
        return np.array(sorted(land.youngest(limit)), dtype=np.intp)
    front = land.front_F[-limit // 2 :].tolist()
    return np.array(sorted({land.first, *front, *land.youngest(limit - len(front))}), dtype=np.intp)


def _features(points: Sequence[Point], names: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    genes = {gene: i for i, gene in enumerate(sorted(set().union(*(p.genes for p in points))))}
    knobs = {knob: i for i, knob in enumerate(names)}
    has = np.zeros((len(points), len(genes)))
    units = np.full((len(points), len(knobs)), 0.5)  # a tree without the knob: any constant keeps the kernel positive
    for row, p in enumerate(points):
        has[row, [genes[g] for g in p.genes]] = 1.0
        for knob, unit in p.knobs.items():
            units[row, knobs[knob]] = unit
    return has, units


def _kernel(
    has_ND: FloatArray, units_NK: FloatArray, dials_K: npt.NDArray[np.bool_], config: SurrogateConfig
) -> FloatArray:
    shared = has_ND @ has_ND.T
    size = has_ND.sum(axis=1)
    differing = size[:, None] + size[None, :] - 2 * shared
    moved = _apart(units_NK[:, ~dials_K]) / max(config.knob_length, 1e-3)
    turned = _apart(units_NK[:, dials_K]) / max(config.knob_length, 1e-3)
    similar = np.exp(-differing / max(config.decay, 1e-3))
    # Centred on the empty set (the seed, whose gain is 0 by definition).
    alone = np.exp(-size / max(config.decay, 1e-3))
    together = similar - np.outer(alone, alone)
    kernel: FloatArray = (
        config.linear * shared
        + config.interaction * together
        + config.knob * similar * np.exp(-moved)
        + config.dial * similar * np.exp(-turned)
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
