"""Decides how a figure of a comparison is spelled."""

from __future__ import annotations

import math

from population.objectives import Direction, Objective
from population.statistics import Estimate
from search.resampling import Interval
from vibeserve.wording import number


def titled(objective: Objective) -> str:
    """`median_ttft_ms (ms ↓)`."""
    arrow = "↑" if objective.direction is Direction.MAX else "↓"
    return f"{objective.name} ({' '.join(part for part in (objective.unit, arrow) if part)})"


def bracketed(found: Interval, unit: str = "") -> str:
    """`0.81× [0.78, 0.84]`; without brackets where nothing is known of its spread."""
    if math.isnan(found.value):
        return ""
    if found.low == found.high:
        return f"{figure(found.value)}{unit}"
    return f"{figure(found.value)}{unit} [{figure(found.low)}, {figure(found.high)}]"


def gained(found: Interval, over: str) -> str:
    """`1.31× of A [1.22, 1.40]`."""
    return f"{figure(found.value)}× of {over} [{figure(found.low)}, {figure(found.high)}]"


def stacked(cell: str) -> list[str]:
    """The lines of a narrow cell: every interval below its value."""
    return cell.replace(" [", "\n[").replace("; ", "\n").split("\n")


def figure(value: float) -> str:
    """`0.214`, `1.31`, `812`: three digits behind the point below 1, so that shares of a box line up."""
    if not math.isfinite(value):
        return number(value)
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 10 else number(value)


def signed(found: Interval) -> str:
    """`+0.214 [+0.180, +0.245]`."""
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def shares(found: Interval) -> str:
    """`86 % [71 %, 100 %]`; empty where there is no share."""
    if math.isnan(found.value):
        return ""
    spread = "" if found.low == found.high else f" [{percent(found.low)}, {percent(found.high)}]"
    return f"{percent(found.value)}{spread}"


def percent(share: float) -> str:
    """`86 %`."""
    return "–" if math.isnan(share) else f"{share:.0%}".replace("%", " %")


def valued(objective: Objective, value: float) -> str:
    """`median_ttft_ms 17.2 ms`."""
    return f"{objective.name} {number(value)}{' ' + objective.unit if objective.unit else ''}"


def interval_of(found: Estimate) -> Interval:
    """A measured value as a figure."""
    return Interval(value=found.value, low=found.low, high=found.high)
