"""Decides how two objectives of many candidates are drawn: one SVG without scripts, fonts or colours of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from population.statistics import Estimate
from vibeserve.wording import number

WIDTH, HEIGHT = 600, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 20, 56
_LABEL_WIDTH, _LABEL_HEIGHT = 8.6, 17
"""Of a letter, as large as it gets: on a phone."""
_LOG_FROM = 5.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""
_ORDER = ("dominated", "front", "seed", "baseline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One candidate; what has no finite value is left out by whoever draws."""

    label: str
    kind: str
    """`front`, `dominated`, `seed` or `baseline`: a class of the page's style sheet, and the shape."""
    x: Estimate
    y: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What is drawn along one side."""

    name: str
    unit: str | None
    better: str
    """`max` or `min`."""

    @property
    def title(self) -> str:
        """Name, unit and which way is better."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.name}{unit}, {'more' if self.better == 'max' else 'less'} is better"


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    begin: float
    end: float
    log: bool

    def at(self, value: float) -> float:
        """Pixels; ends of intervals outside the axis are cut."""
        value = min(max(value, self.low), self.high)
        share = (
            math.log(value / self.low) / math.log(self.high / self.low)
            if self.log
            else (value - self.low) / (self.high - self.low)
        )
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Round values inside, five or so."""
        if self.log:
            return log_ticks(self.low, self.high)
        rough = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every power of ten between the two; of a wide range the powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [value for power in powers for m in (1, 2, 5) if low <= (value := m * 10.0**power) <= high]
    return found if len(found) <= 8 else [10.0**power for power in powers if low <= 10.0**power <= high]


def scatter(points: Sequence[Point], x: Axis, y: Axis) -> str:
    """The drawing; empty without a point."""
    points = [p for p in points if all(0 < v < math.inf for v in (p.x.value, p.y.value))]
    if not points:
        return ""
    across = _scale([v for p in points for v in _span(p.x)], _LEFT, WIDTH - _RIGHT)
    up = _scale([v for p in points for v in _span(p.y)], HEIGHT - _BOTTOM, _TOP)
    ordered = sorted(points, key=lambda p: _ORDER.index(p.kind))
    marks = [_mark(p, across, up) for p in ordered]
    alt = f"{y.name} against {x.name}: {sum(p.kind == 'front' for p in points)} members of the front"
    head = f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}">'
    return "\n".join([head, *_frame(across, up, x, y), *marks, *_labels(ordered, across, up), "</svg>"])


def _span(found: Estimate) -> list[float]:
    """The value and the ends of its interval, unless they would flatten everything else."""
    return [found.value, *(end for end in (found.low, found.high) if found.value / 4 < end < found.value * 4)]


def _scale(values: Sequence[float], begin: float, end: float) -> _Scale:
    low, high = min(values), max(values)
    if high / low >= _LOG_FROM:
        return _Scale(low / 1.12, high * 1.12, begin, end, True)
    margin = (high - low) * 0.08 or high * 0.1
    return _Scale(max(0.0, low - margin), high + margin, begin, end, False)


def _frame(across: _Scale, up: _Scale, x: Axis, y: Axis) -> list[str]:
    bottom, middle = HEIGHT - _BOTTOM, (_TOP + HEIGHT - _BOTTOM) / 2
    parts = []
    for value in across.ticks():
        at = across.at(value)
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{value:,.10g}</text>')
    for value in up.ticks():
        at = up.at(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:,.10g}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{WIDTH - _RIGHT}"/>')
    centre = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="title" x="{centre:.0f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x.title)}</text>'
    )
    turned = f'transform="rotate(-90 16 {middle:.0f})"'
    parts.append(f'<text class="title" x="16" y="{middle:.0f}" text-anchor="middle" {turned}>{escape(y.title)}</text>')
    return parts


def _mark(point: Point, across: _Scale, up: _Scale) -> str:
    x, y = across.at(point.x.value), up.at(point.y.value)
    bars = ""
    if point.kind != "dominated":
        bars = f'<path class="bar" d="M{across.at(point.x.low):.1f} {y:.1f}H{across.at(point.x.high):.1f}'
        bars += f'M{x:.1f} {up.at(point.y.low):.1f}V{up.at(point.y.high):.1f}"/>'
    said = " / ".join(f"{number(e.value)} ({number(e.low)} – {number(e.high)})" for e in (point.x, point.y))
    shapes = {
        "seed": f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"/>',
        "baseline": f'<path d="M{x:.1f} {y - 7:.1f}l6.5 12h-13z"/>',
        "dominated": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>',
    }
    shape = shapes.get(point.kind, f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
    return f'<g class="{point.kind}"><title>{escape(point.label)}: {said}</title>{bars}{shape}</g>'


def _labels(points: Sequence[Point], across: _Scale, up: _Scale) -> list[str]:
    """Names beside the marks, where they cover no other name or named mark, and if possible no grey one either."""
    named = [point for point in points if point.kind != "dominated"]
    grey = [_around(across.at(p.x.value), up.at(p.y.value), 3.0) for p in points if p.kind == "dominated"]
    taken = [_around(across.at(p.x.value), up.at(p.y.value), 6.0) for p in named]
    parts = []
    for point in named:
        places = _places(across.at(point.x.value), up.at(point.y.value), len(point.label) * _LABEL_WIDTH)
        free = [box for box in places if not any(_overlap(box, other) for other in taken)]
        clear = [box for box in free if not any(_overlap(box, other) for other in grey)]
        if box := next(iter(clear or free), None):
            taken.append(box)
            parts.append(f'<text class="name" x="{box[0]:.1f}" y="{box[1] + 13:.1f}">{escape(point.label)}</text>')
    return parts


_Box = tuple[float, float, float, float]
"""Left, top, width, height."""


def _around(x: float, y: float, radius: float) -> _Box:
    return (x - radius, y - radius, 2 * radius, 2 * radius)


def _places(x: float, y: float, wide: float) -> list[_Box]:
    """Where a name of this width may stand, the best place first; all inside the axes."""
    corners = ((x + 9, y - 18), (x - 9 - wide, y - 18), (x + 9, y + 4), (x - 9 - wide, y + 4), (x - wide / 2, y - 26),
               (x - wide / 2, y + 12), (x - 9 - wide, y - 34), (x + 9, y - 34))  # fmt: skip
    return [
        (left, top, wide, float(_LABEL_HEIGHT))
        for left, top in corners
        if left >= _LEFT and left + wide <= WIDTH - _RIGHT and 2 <= top <= HEIGHT - _BOTTOM - _LABEL_HEIGHT
    ]


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
