"""Decides which row a piece of work is drawn in: the GPU or CPUs that it ran on, or the first row that was free."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from population.evaluation import Place
from vibeserve.dashboard.work import Bar

_TOLERANCE_S = 0.05


@dataclass(slots=True)
class Row:
    """What one GPU, one set of CPUs or one nameless slot did, in order of time."""

    name: str
    real: bool
    """Whether the ledger says that it was this one."""
    bars: list[Bar] = field(default_factory=list)


def rows(bars: Sequence[Bar], now: float, nameless: str) -> list[Row]:
    """Named rows by name, then those called `nameless` 1, 2, …; a piece of work on several GPUs is in several rows."""
    places = frozenset(bar.place for bar in bars if bar.place is not None)
    named = {} if _crossed(places) else {place: _names(place, len({p.node for p in places}) > 1) for place in places}
    found: dict[str, Row] = {}
    for bar in bars:
        for name in named.get(bar.place, ()) if bar.place else ():
            found.setdefault(name, Row(name, real=True)).bars.append(bar)
    ordered = sorted(found.values(), key=lambda row: _natural(row.name))
    return _with_nameless(ordered, [bar for bar in bars if bar.place not in named], now, nameless)


def _names(place: Place, with_node: bool) -> tuple[str, ...]:
    shown = place if with_node else replace(place, node="")
    return tuple(str(replace(shown, gpus=(gpu,), cpus=())) for gpu in place.gpus) or (str(shown),)


def _crossed(places: Iterable[Place]) -> bool:
    """Sets of CPUs that share some are not slots: they would overlap, and look idle where others had their CPUs."""
    sets = [(place.node, frozenset(place.cpus)) for place in places if not place.gpus]
    return any(a[0] == b[0] and a[1] & b[1] for a, b in combinations(sets, 2))


def _natural(name: str) -> list[tuple[int, str]]:
    """GPU 2 before GPU 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _with_nameless(named: Sequence[Row], bars: Sequence[Bar], now: float, nameless: str) -> list[Row]:
    """What goes on, and records older than the place, go where there is room: what is known to be elsewhere is not."""
    found = list(named)
    starts = [[bar.start for bar in row.bars] for row in found]
    for bar in bars:
        span = bar.span(now)
        for row, begun in zip(found, starts, strict=True):
            at = bisect.bisect_right(begun, span.start)
            before = at == 0 or row.bars[at - 1].span(now).end <= span.start + _TOLERANCE_S
            if before and (at == len(begun) or begun[at] >= span.end - _TOLERANCE_S):
                break
        else:
            row, begun, at = Row(f"{nameless} {len(found) - len(named) + 1}", real=False), [], 0
            found.append(row)
            starts.append(begun)
        row.bars.insert(at, bar)
        begun.insert(at, span.start)
    return found
