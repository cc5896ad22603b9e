"""Decides how good a front is: hypervolume, its history over children, IGD+ and additive epsilon, in log-cost space.

Costs are natural logarithms to be minimised (population/objectives.py), so hypervolume is a product of log ratios over
the reference point: with the reference at the seed it counts only what is better than the seed in *every* objective.
Axis N: members, M: objectives, C: hypothetical children.
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
import numpy.typing as npt

from population.archive import Archive

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def hypervolume(costs_NM: FloatArray, reference_M: FloatArray) -> float:
    """Volume dominated by the members inside the reference point (Zitzler & Thiele 1998); 0 for none inside."""
    inside = costs_NM[(costs_NM < reference_M).all(axis=1)] if len(costs_NM) else costs_NM
    if len(inside) == 0:
        return 0.0
    return float(moocore.hypervolume(np.clip(inside, -1e3, None), ref=reference_M))


def improvements(children_CM: FloatArray, front_NM: FloatArray, reference_M: FloatArray) -> FloatArray:
    """Hypervolume (C,) that each child alone would add to the front."""
    before = hypervolume(front_NM, reference_M)
    indicator = moocore.Hypervolume(ref=reference_M)
    inside = front_NM[(front_NM < reference_M).all(axis=1)]
    gains = np.zeros(len(children_CM))
    dominated: BoolArray = np.any(np.all(inside[None, :, :] <= children_CM[:, None, :], axis=2), axis=1)
    for index in np.flatnonzero((children_CM < reference_M).all(axis=1) & ~dominated):
        gains[index] = max(0.0, float(indicator(np.vstack([inside, children_CM[index]]))) - before)
    return gains


def normalised(costs_NM: FloatArray, ideal_M: FloatArray, reference_M: FloatArray) -> FloatArray:
    """Costs scaled so that the ideal is 0 and the reference 1; an objective without range stays unscaled."""
    span = np.where(reference_M > ideal_M, reference_M - ideal_M, 1.0)
    scaled: FloatArray = (costs_NM - ideal_M) / span
    return scaled


def hypervolume_history(archive: Archive, reference_M: FloatArray) -> list[tuple[int, float]]:
    """(child number, hypervolume so far) in order of child number, for every child that has ended."""
    history: list[tuple[int, float]] = []
    front, volume = np.empty((0, len(reference_M))), 0.0
    scored = set(archive.scored)
    for number in sorted(archive.children):
        candidate = archive.candidates.get(f"c{number:06d}")
        if candidate is not None and candidate.id in scored:
            costs = archive.costs(candidate.id)
            if not (front <= costs).all(axis=1).any():
                front = np.vstack([front[~(costs <= front).all(axis=1)], costs])
                volume = hypervolume(front, reference_M)
        history.append((number, volume))
    return history


def igd_plus(costs_NM: FloatArray, true_front_NM: FloatArray) -> float:
    """Inverted generational distance plus (Ishibuchi et al. 2015): mean log distance to the true front; 0 is best."""
    return float(moocore.igd_plus(costs_NM, ref=true_front_NM))


def epsilon(costs_NM: FloatArray, true_front_NM: FloatArray) -> float:
    """Additive epsilon (Zitzler et al. 2003): log factor by which the worst-covered true member is missed."""
    return float(moocore.epsilon_additive(costs_NM, ref=true_front_NM))


def generation(number: int, generation_size: int) -> int:
    """Generations are a reporting unit: child 1 opens generation 0, the seed belongs to it too."""
    return max(number - 1, 0) // generation_size


def best_so_far(values: Sequence[float], higher_is_better: bool) -> list[float]:
    """Running best of a series, for convergence curves."""
    running = np.maximum.accumulate(values) if higher_is_better else np.minimum.accumulate(values)
    return [float(value) for value in running]
