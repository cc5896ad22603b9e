"""Decides what is shown of attainment: surfaces of each setting, and where two settings differ, in values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from search.attainment import LEAST_RUNS, difference, surfaces
from search.comparison import finite
from vibeserve.comparing.comparison import Comparison
from vibeserve.comparing.settings import Setting

FloatArray = npt.NDArray[np.float64]


def attainment(comparison: Comparison) -> list[dict[str, Any]]:
    """One object per pair of objectives; none where no setting has enough runs.

    `axes`: places of the two objectives. `surfaces`: setting → `any`, `half`, `all` of its runs → corners `[x, y]`.
    `differences`: per pair of settings `areas`, each `[x0, y0, x1, y1, share of the first's runs minus the second's]`.
    """
    eligible = [setting for setting in comparison.settings if len(setting.keys) >= LEAST_RUNS]
    pairs = combinations(range(len(comparison.objectives)), 2)
    return [_on(comparison, pair, eligible) for pair in pairs] if eligible else []


def _on(comparison: Comparison, pair: tuple[int, int], eligible: Sequence[Setting]) -> dict[str, Any]:
    fronts = {setting.label: _fronts(comparison, setting, pair) for setting in eligible}
    return {
        "axes": list(pair),
        "surfaces": {label: _surfaces(comparison, pair, found) for label, found in fronts.items()},
        "differences": [
            {"first": a, "second": b, "areas": _areas(comparison, pair, fronts[a], fronts[b])}
            for a, b in combinations(fronts, 2)
        ],
    }


def _fronts(comparison: Comparison, setting: Setting, pair: tuple[int, int]) -> list[FloatArray]:
    """Costs (N, 2) of each run of a setting that has a finite member."""
    found = [comparison.entry(key).contender.costs(comparison.objectives) for key in setting.keys]
    return [costs[:, pair] for costs in map(finite, found) if len(costs)]


def _surfaces(comparison: Comparison, pair: tuple[int, int], fronts: Sequence[FloatArray]) -> dict[str, Any]:
    """`any`, `half` and `all` of the runs → the corners as values, from one edge of the picture to the other."""
    runs = len(fronts)
    if not runs:
        return {}
    shares = {"any": 1 / runs, "half": math.ceil(runs / 2) / runs, "all": 1.0}
    found = surfaces(fronts, sorted(set(shares.values())))
    return {name: _corners(comparison, pair, found[share]) for name, share in shares.items()}


def _corners(comparison: Comparison, pair: tuple[int, int], corners: FloatArray) -> list[list[float]]:
    if not len(corners):
        return []
    worst = comparison.scale.reference_M[list(pair)]
    ends = [[corners[0, 0], max(worst[1], corners[0, 1])], *corners, [max(worst[0], corners[-1, 0]), corners[-1, 1]]]
    return [_values(comparison, pair, end) for end in ends]


def _areas(
    comparison: Comparison, pair: tuple[int, int], first: Sequence[FloatArray], second: Sequence[FloatArray]
) -> list[list[float]]:
    """`[x0, y0, x1, y1, difference]` in values; open ends are cut at the reference point."""
    if not first or not second:
        return []
    worst = comparison.scale.reference_M[list(pair)]
    areas = []
    for area in difference(first, second):
        high = (min(area.high_x, worst[0]), min(area.high_y, worst[1]))
        if area.low_x < high[0] and area.low_y < high[1]:
            low = _values(comparison, pair, (area.low_x, area.low_y))
            areas.append([*low, *_values(comparison, pair, high), area.difference])
    return areas


def _values(comparison: Comparison, pair: tuple[int, int], costs: Sequence[float] | FloatArray) -> list[float]:
    return [comparison.objectives[m].value(float(cost)) for m, cost in zip(pair, costs, strict=True)]
