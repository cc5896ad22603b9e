"""Decides what an idle slot was waiting for, as far as the ledger can tell."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

SHORT_S = 0.5
"""Shorter gaps are hand-over, not idling."""


class Span(NamedTuple):
    """Unix seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return max(0.0, self.end - self.start)


class _Covered:
    """How much of a span is covered by many others, which may overlap."""

    def __init__(self, spans: Sequence[Span]) -> None:
        merged: list[Span] = []
        for span in sorted(spans):
            if merged and span.start <= merged[-1].end:
                merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
            else:
                merged.append(span)
        self._merged, self._starts = merged, [span.start for span in merged]

    def seconds(self, span: Span) -> float:
        found = 0.0
        for other in self._merged[max(0, bisect.bisect_right(self._starts, span.start) - 1) :]:
            if other.start >= span.end:
                break
            found += Span(max(span.start, other.start), min(span.end, other.end)).seconds
        return found


def idle(
    lanes: Sequence[Sequence[Span]],
    mutating: Sequence[Span],
    driverless: Sequence[Span],
    whole: tuple[float, float],
    seeded: float,
) -> dict[str, Any]:
    """Busy share of the evaluation slots, and idle slot-seconds by reason; time without a driver counts as neither.

    `seeded` is when the seed had ended: until then there is nothing else to do.
    """
    away, writing = _Covered(driverless), _Covered(mutating)
    reasons: dict[str, float] = {}
    busy = 0.0
    for lane in lanes:
        busy += sum(span.seconds for span in lane)
        edges = [Span(whole[0], whole[0]), *_first(lane, seeded), *lane, Span(whole[1], whole[1])]
        for before, after in pairwise(edges):
            gap = Span(before.end, after.start)
            if gap.seconds <= SHORT_S:
                continue
            absent = away.seconds(gap)
            waited = gap.seconds - absent
            used = bool(lane) and gap.start >= lane[0].start
            reason = _reason(gap, (seeded, whole[1]), used, writing.seconds(gap), waited)
            reasons["no driver was running"] = reasons.get("no driver was running", 0.0) + absent
            reasons[reason] = reasons.get(reason, 0.0) + waited
    idle_s = sum(s for name, s in reasons.items() if name != "no driver was running")
    ordered = sorted(((name, s) for name, s in reasons.items() if s > SHORT_S), key=lambda item: -item[1])
    return {
        "busy_s": round(busy, 3),
        "busy_share": busy / (busy + idle_s) if busy + idle_s else None,
        "idle": [{"reason": name, "seconds": round(s, 3)} for name, s in ordered],
    }


def _first(lane: Sequence[Span], seeded: float) -> list[Span]:
    """Cuts the wait for a slot's first work in two, where the seed has ended meanwhile."""
    return [Span(seeded, seeded)] if lane and lane[0].start > seeded else []


def _reason(gap: Span, between: tuple[float, float], used: bool, writing_s: float, waited_s: float) -> str:
    seeded, end = between
    if gap.end <= seeded or (not used and gap.start < seeded):
        return "preparing, or waiting for the seed"
    if gap.end >= end:
        return "nothing left to measure"
    if writing_s >= 0.5 * waited_s:
        return "waiting for a mutation"
    return "nothing proposed or handed over yet" if used else "not used yet: no work for it, or not there"
