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


def reference(seed_M: FloatArray, front_NM: FloatArray, reach: float) -> FloatArray:
    """Reference point (M,) of what a search is after: the seed or, where worse, a bit worse than the whole front.

    With the seed alone, nothing would count that gives up some of what the seed has; the front's ends do. `reach` is in
    extents of the front.
    """
    if not len(front_NM):
        return seed_M
    shown_NM = np.clip(front_NM, -1e3, 1e3)
    worst_M = shown_NM.max(axis=0)
    found: FloatArray = np.maximum(seed_M, worst_M + reach * (worst_M - shown_NM.min(axis=0)))
    return found


class Unclaimed:
    """What a front leaves to be dominated inside the reference point, so that many children are weighed at once.

    Up to three objectives as disjoint boxes, of which a sweep along the third finds O(N) (as Fonseca et al. 2006;
    decomposition after Lacour, Klamroth & Fonseca 2017); above, moocore measures the front with every child again.
    """

    def __init__(self, front_NM: FloatArray, reference_M: FloatArray) -> None:
        self._reference_M = reference_M
        self._front_NM = front_NM[(front_NM < reference_M).all(axis=1)]
        self._boxes: tuple[FloatArray, FloatArray] | None = None
        if len(reference_M) <= 3:
            missing = 3 - len(reference_M)
            self._boxes = _sweep(
                np.pad(self._front_NM, ((0, 0), (0, missing))), np.append(reference_M, [1.0] * missing)
            )

    def gains(self, children_CM: FloatArray) -> FloatArray:
        """Hypervolume (C,) that each child alone would add to the front."""
        children_CM = np.clip(children_CM, -1e3, None)
        gains, inside = np.zeros(len(children_CM)), (children_CM < self._reference_M).all(axis=1)
        beaten: BoolArray = np.any(np.all(self._front_NM <= children_CM[inside][:, None, :], axis=2), axis=1)
        wanted = np.flatnonzero(inside)[~beaten]
        gains[wanted] = self._boxed(children_CM[wanted]) if self._boxes else self._measured(children_CM[wanted])
        return gains

    def _boxed(self, children_CM: FloatArray) -> FloatArray:
        assert self._boxes is not None
        (low_B3, high_B3), missing = self._boxes, 3 - children_CM.shape[1]
        children = np.pad(children_CM, ((0, 0), (0, missing)))
        volumes: FloatArray = np.ones((len(children), len(low_B3)))
        for axis in range(3):
            volumes *= np.maximum(high_B3[:, axis] - np.maximum(children[:, axis, None], low_B3[:, axis]), 0.0)
        total: FloatArray = volumes.sum(axis=1)
        return total

    def _measured(self, children_CM: FloatArray) -> FloatArray:
        before, indicator = hypervolume(self._front_NM, self._reference_M), moocore.Hypervolume(ref=self._reference_M)
        after = (float(indicator(np.vstack([self._front_NM, child]))) for child in children_CM)
        return np.array([max(0.0, volume - before) for volume in after])


def _sweep(front_N3: FloatArray, reference_3: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lower and upper corners (B, 3) of disjoint boxes that fill what the front does not dominate below the reference.

    The points come by the third coordinate. At any height, what they leave is below a staircase: a strip reaches from
    one step's x to the next one's, below the step's y. A newcomer ends the strips that it lowers, and begins new ones.
    """
    end_x, end_y, end_z = (float(edge) for edge in reference_3)
    strips: list[tuple[float, float, float, float]] = [(-np.inf, end_x, end_y, -np.inf)]
    boxes = []
    for x, y, z in sorted(np.clip(front_N3, -1e3, None).tolist(), key=lambda point: point[2]):
        first = next((i for i, strip in enumerate(strips) if strip[1] > x and strip[2] > y), None)
        if first is None:
            continue  # below it, a point that is as good in all three
        last = next((i for i in range(first, len(strips)) if strips[i][2] <= y), len(strips))
        boxes += [(*strip, z) for strip in strips[first:last]]
        left, _, high, _ = strips[first]
        before = [(left, x, high, z)] if left < x else []
        strips[first:last] = [*before, (x, strips[last - 1][1], y, z)]
    boxes += [(*strip, end_z) for strip in strips]
    table = np.array(boxes, dtype=np.float64)
    low = np.stack([table[:, 0], np.full(len(table), -np.inf), table[:, 3]], axis=1)
    return low, table[:, [1, 2, 4]]


def improvements(children_CM: FloatArray, front_NM: FloatArray, reference_M: FloatArray) -> FloatArray:
    """Hypervolume (C,) that each child alone would add to the front."""
    return Unclaimed(front_NM, reference_M).gains(children_CM)


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
