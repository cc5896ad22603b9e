"""Decides how the use of slots over time is drawn: what each was doing, and what an idle one was waiting for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from population.events import Ended, EpochStarted, Event
from vibeserve.dashboard.idle import Span, idle
from vibeserve.dashboard.rows import Row, rows
from vibeserve.dashboard.spending import gpus_per_evaluation
from vibeserve.dashboard.work import Bar, work
from vibeserve.follower import Followed
from vibeserve.lifecycle import RunState

MOST_BARS = 2500


def timeline(run: Followed, window: tuple[float, float] | None) -> dict[str, Any]:
    """Rows with bars inside the window (all without one), busy share and idle time by its reason."""
    times = [event.time_s for event in run.events if event.time_s]
    begin, end = (min(times), max(times)) if times else (0.0, 0.0)
    found = run.kept("rows", lambda: _rows(run, end))
    drawn = Span(*(window or (begin, end)))
    budget = max(50, MOST_BARS // max(1, sum(map(len, found.values()))))

    def bars(row: Row) -> list[dict[str, Any]]:
        seen = [bar for bar in row.bars if bar.span(end).end >= drawn.start and bar.start <= drawn.end]
        return [_bar_json(bar) for bar in _merged(seen, max(1e-9, drawn.seconds) / 1200, budget)]

    return {
        "revision": run.revision,
        "begin": begin,
        "end": end,
        "live": run.life in (RunState.RUNNING, RunState.REMOTE),
        "gpus": gpus_per_evaluation(run),
        "lanes": [
            {"pool": pool, "name": row.name, "real": row.real, "bars": bars(row)}
            for pool, lanes in found.items()
            for row in lanes
        ],
        **run.kept("idle", lambda: _idle(run, found["evaluate"], (begin, end))),
    }


def _rows(run: Followed, end: float) -> dict[str, list[Row]]:
    done = work(run)
    pools = {"evaluate": "slot", "mutate": "mutation"}
    return {pool: rows(done.get(pool, ()), end, nameless) for pool, nameless in pools.items()}


def _idle(run: Followed, lanes: Sequence[Row], whole: tuple[float, float]) -> dict[str, Any]:
    end = whole[1]
    busy = [[bar.span(end) for bar in row.bars] for row in lanes]
    return idle(
        busy,
        [bar.span(end) for bar in work(run).get("mutate", ())],
        _without_driver(run.events),
        whole,
        _seeded(run, whole),
    )


def _seeded(run: Followed, whole: tuple[float, float]) -> float:
    ended = (event.time_s for event in run.events if isinstance(event, Ended) and event.number == 0)
    return next(ended, whole[1])


def _merged(bars: Sequence[Bar], gap_s: float, budget: int) -> list[Bar]:
    """Neighbours of one kind that stand closer than a pixel, joined, until there are few enough to draw."""
    merged = list(bars)
    while len(merged) > budget:
        joined: list[Bar] = []
        for bar in merged:
            last = joined[-1] if joined else None
            if last and last.end is not None and bar.end is not None and bar.start - last.end < gap_s:
                count = last.merged + bar.merged
                joined[-1] = replace(last, end=bar.end, outcome="", merged=count)
            else:
                joined.append(bar)
        merged, gap_s = joined, gap_s * 2
    return merged


def _bar_json(bar: Bar) -> dict[str, Any]:
    return {
        "kind": bar.kind,
        "key": bar.key,
        "start": round(bar.start, 3),
        "end": None if bar.end is None else round(bar.end, 3),
        "outcome": bar.outcome,
        "merged": bar.merged,
    }


def _without_driver(events: Sequence[Event]) -> list[Span]:
    """Between the last word of a driver and the first of its successor."""
    found, last = [], 0.0
    for event in events:
        if isinstance(event, EpochStarted) and last and event.time_s > last:
            found.append(Span(last, event.time_s))
        last = event.time_s or last
    return found
