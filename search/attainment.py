"""Decides what the runs of one setting attain together: empirical attainment surfaces, and where two settings differ.

All on costs, projected on two objectives, because a surface is looked at. A point is *attained* by a run whose front
weakly dominates it (Grunert da Fonseca, Fonseca & Hall 2001; computed by moocore).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LEAST_RUNS = 3
"""Runs per setting below which there is no distribution to look at."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Where two settings differ: corners in costs, `inf` where it is open, and the difference of the shares of runs."""

    low_x: float
    low_y: float
    high_x: float
    high_y: float
    difference: float
    """Share of the first setting's runs that attain it, minus that of the second's: -1 to 1."""


def surfaces(fronts: Sequence[FloatArray], shares: Sequence[float]) -> Mapping[float, FloatArray]:
    """Share → the corners (K, 2), by the first objective, of the surface that at least this share of runs attains.

    `fronts` are the costs (N, 2) of at least one run; a share is in (0, 1], 1 is what every run attains.
    """
    points, owners = _together(fronts)
    found = moocore.eaf(points, owners, percentiles=[100 * share for share in shares])
    surface = {share: found[np.isclose(found[:, 2], 100 * share)][:, :2] for share in shares}
    return {share: corners[np.argsort(corners[:, 0])] for share, corners in surface.items()}


def difference(first: Sequence[FloatArray], second: Sequence[FloatArray]) -> tuple[Rectangle, ...]:
    """Where more runs of one setting than of the other attain, as rectangles; without those of no difference.

    The settings must have the same number of runs, as the counts are compared; more of one are left out.
    """
    runs = min(len(first), len(second))
    rows = moocore.eafdiff(_table(first[:runs]), _table(second[:runs]), intervals=runs, rectangles=True)
    areas = [[float(number) for number in row] for row in rows if row[4] and np.isfinite(row[:2]).all()]
    return tuple(Rectangle(x0, y0, x1, y1, count / runs) for x0, y0, x1, y1, count in areas)


def _together(fronts: Sequence[FloatArray]) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    owners = np.repeat(np.arange(len(fronts)), [len(front) for front in fronts])
    return np.vstack(list(fronts)), owners


def _table(fronts: Sequence[FloatArray]) -> FloatArray:
    points, owners = _together(fronts)
    return np.column_stack([points, owners.astype(np.float64)])
