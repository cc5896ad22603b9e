"""Decides what work was done when, as the ledger tells: mutations and evaluations, with place and outcome."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from population.candidate import candidate_id
from population.evaluation import Place, Scored
from population.events import Ended, FinalMeasured, MutationDone, Proposed, Remeasured, RemeasureStarted
from vibeserve.dashboard.idle import Span
from vibeserve.follower import Followed
from vibeserve.lifecycle import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One piece of work. Unix seconds; `end` None is still going on."""

    pool: str
    """`evaluate` or `mutate`."""
    kind: str
    """`child`, `remeasure`, `final`, `mutate`."""
    key: str
    start: float
    end: float | None
    outcome: str = ""
    place: Place | None = None
    merged: int = 1
    """Pieces that stand too close to be told apart and are drawn as one."""

    def span(self, now: float) -> Span:
        """What goes on ends now."""
        return Span(self.start, now if self.end is None else self.end)


def work(run: Followed) -> dict[str, Sequence[Bar]]:
    """Every piece of work by pool, in order of its start."""
    return run.kept("work", lambda: _work(run))


def _work(run: Followed) -> dict[str, Sequence[Bar]]:
    began: dict[str, float] = {}
    made: dict[int, float] = {}
    found: dict[str, list[Bar]] = defaultdict(list)
    for event in run.events:
        if isinstance(event, Proposed):
            began[event.proposal.id] = event.time_s
        elif isinstance(event, RemeasureStarted):
            began[f"r{event.index:06d}"] = event.time_s
        elif isinstance(event, MutationDone):
            name = candidate_id(event.number)
            start = max(began[name], event.time_s - event.elapsed_s)
            found["mutate"].append(Bar(pool="mutate", kind="mutate", key=name, start=start, end=event.time_s))
            made[event.number] = event.time_s
        elif isinstance(event, Ended | Remeasured | FinalMeasured):
            bar = _evaluation(event, began, made)
            found[bar.pool].append(bar)
    for bar in _in_flight(run, began, made):
        found[bar.pool].append(bar)
    return {pool: sorted(bars, key=lambda bar: bar.start) for pool, bars in found.items()}


def _in_flight(run: Followed, began: dict[str, float], made: dict[int, float]) -> list[Bar]:
    outcome = "in flight" if run.life in (RunState.RUNNING, RunState.REMOTE) else "cut off"
    bars = []
    for number, proposal in run.state.pending.items():
        pool, kind = ("evaluate", "child") if number in made else ("mutate", "mutate")
        start = made.get(number, began[proposal.id])
        bars.append(Bar(pool=pool, kind=kind, key=proposal.id, start=start, end=None, outcome=outcome))
    for index, name in run.state.remeasuring.items():
        start = began[f"r{index:06d}"]
        bars.append(Bar(pool="evaluate", kind="remeasure", key=name, start=start, end=None, outcome=outcome))
    return bars


def _evaluation(event: Ended | Remeasured | FinalMeasured, began: dict[str, float], made: dict[int, float]) -> Bar:
    found = event.evaluation
    outcome = "scored" if isinstance(found, Scored) else f"rejected: {found.stage}" if found else "no result"
    pool, kind, start = "evaluate", "child", event.time_s - event.elapsed_s
    match event:
        case FinalMeasured():
            kind, key = "final", f"f-{event.subject}-{event.round}"
        case Remeasured():
            kind, key = "remeasure", event.candidate
            start = max(began.get(f"r{event.index:06d}", start), start)
        case Ended():
            key = candidate_id(event.number)
            start = max(made.get(event.number, began[key]), start)
            if event.number not in made:  # a child without a commit was never evaluated
                pool, kind = "mutate", "mutate"
    return Bar(pool=pool, kind=kind, key=key, start=start, end=event.time_s, outcome=outcome, place=event.place)
