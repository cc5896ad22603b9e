"""Decides whether one kind of token is worse than the sample as a whole: late ones, long prompts', crowded answers'.

A server that cuts corners for such tokens alone hides in a mean over all of them. Each half of the sample, by position
in the answer, by prompt length and by occupancy, must keep the thresholds too, widened by the square root of its share,
because fewer tokens scatter more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluators.strict_json import Malformed

Floats = npt.NDArray[np.float64]
HALVES = {
    "position in the answer": ("early", "late"),
    "prompt length": ("short", "long"),
    "occupancy": ("few served at once", "many served at once"),
}


def broken_halves(
    report: Mapping[str, Any], shapes: Mapping[str, tuple[int, int]], limits: Mapping[str, float]
) -> list[str]:
    """What is above its widened limit, in words; nothing where the report has no `gaps`.

    Args:
        report: what the target's score command wrote.
        shapes: response id → prompt length, occupancy.
        limits: `mean_gap` and `flip_rate`, as far as the target bounds them.

    Raises:
        Malformed: `gaps` are no gaps.
    """
    columns = _columns(report, shapes)
    if columns is None:
        return []
    gaps, *keys = columns
    found = []
    for (name, sides), key in zip(HALVES.items(), keys, strict=True):
        upper = key > np.median(key)
        for side, members in zip(sides, (~upper, upper), strict=True):
            if members.any() and not members.all():
                widened = (len(gaps) / members.sum()) ** 0.5
                values = {"mean_gap": gaps[members].mean(), "flip_rate": (gaps[members] > 0).mean()}
                found += [
                    f"{figure} {values[figure]:.4g} > {limit * widened:.4g} ({name}: {side}, {members.sum()} tokens)"
                    for figure, limit in limits.items()
                    if values[figure] > limit * widened
                ]
    return found


def _columns(report: Mapping[str, Any], shapes: Mapping[str, tuple[int, int]]) -> list[Floats] | None:
    """Per token: its gap, and its position, prompt length and occupancy."""
    scores = report.get("per_response")
    if not isinstance(scores, list) or not all(isinstance(score, dict) and "gaps" in score for score in scores):
        return None
    rows = [
        (gap, position, *shapes[str(score.get("id"))])
        for score in scores
        if str(score.get("id")) in shapes
        for position, gap in enumerate(_checked(score["gaps"]))
    ]
    return list(np.asarray(rows, dtype=np.float64).T) if rows else None


def _checked(gaps: object) -> Sequence[float]:
    if not isinstance(gaps, list) or not all(type(gap) in (int, float) and gap >= 0 for gap in gaps):
        raise Malformed(f"'gaps' must be a list of numbers >= 0, got {str(gaps)[:100]}")
    return gaps
