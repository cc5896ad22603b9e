"""Decides what a watcher is told while the driver works: ticks become snapshots, records become lines."""

from __future__ import annotations

import time
from collections.abc import Mapping

from population.replay import State
from vibeserve.display import Display, FrontRow, Meter, Slot, Snapshot
from vibeserve.driver import Tick
from vibeserve.executor import Executor
from vibeserve.front_rows import front_rows, label_of
from vibeserve.growth import growth, hypervolume
from vibeserve.jobs import ChildJob, Job, RemeasureJob
from vibeserve.progress import eta_s, event_text, path_text
from vibeserve.rules import Rules
from vibeserve.summary import rejections

_REDRAW_S = 0.5
_KEPT_EVENTS = 3


class Observer:
    """Called by the driver on every tick; never changes anything, never takes long."""

    def __init__(self, run: str, rules: Rules, state: State, executor: Executor, display: Display) -> None:
        self._run, self._rules, self._state = run, rules, state
        self._executor, self._display = executor, display
        self._events: tuple[str, ...] = ()
        self._front: tuple[FrontRow, ...] = ()
        self._volume: float | None = None
        self._history: tuple[float, ...] = ()
        self._rejected: Mapping[str, int] = {}
        self._stale = True
        self._drawn = float("-inf")

    def __call__(self, tick: Tick) -> None:
        if tick.event is not None:
            self._stale = True
            text = event_text(tick.event)
            if text:
                self._events = (*self._events, text)[-_KEPT_EVENTS:]
                self._display.event(text)
        if tick.event is None and time.monotonic() - self._drawn >= _REDRAW_S:
            self._drawn = time.monotonic()
            self._display.update(self._snapshot(tick))

    def _snapshot(self, tick: Tick) -> Snapshot:
        archive = self._state.archive
        if self._stale:
            self._front, self._volume = front_rows(archive, self._state.summaries), hypervolume(archive)
            self._history, self._rejected = growth(archive), rejections(archive)
            self._stale = False
        meters = self._meters(tick)
        rejected = sum(self._rejected.values())
        counts = {"scored": max(0, len(archive.scored) - 1), "rejected": rejected, "machine faults": self._faults}
        stages = self._executor.stages()
        return Snapshot(
            run=self._run,
            elapsed_s=tick.elapsed_s,
            slots=tuple(
                _slot(job, str(stages[job.key][0]) if job.key in stages else "queued", s) for job, s in tick.jobs
            ),
            meters=meters,
            counts={name: count for name, count in counts.items() if count},
            front=self._front,
            hypervolume=self._volume,
            history=self._history,
            rejected=self._rejected,
            path=path_text(archive, self._front),
            eta_s=eta_s(meters, tick.elapsed_s),
            events=self._events,
            draining=tick.draining,
        )

    @property
    def _faults(self) -> int:
        return sum(self._state.faults.values())

    def _meters(self, tick: Tick) -> tuple[Meter, ...]:
        rules = self._rules
        children = sum(number > 0 for number in self._state.archive.children)
        meters = [
            Meter(name="children", used=children, limit=rules.children),
            Meter(name="wall time", used=tick.elapsed_s, limit=rules.wall_time_s, unit="s"),
        ]
        if rules.gpus_per_evaluation:
            hours = self._state.evaluate_s * rules.gpus_per_evaluation / 3600
            meters.append(Meter(name="gpu hours", used=hours, limit=rules.gpu_hours, unit="h"))
        return tuple(meters)


def _slot(job: Job, stage: str, elapsed_s: float) -> Slot:
    if isinstance(job, ChildJob):
        proposal = job.proposal
        operator, parents, label = str(proposal.operator), proposal.parents, label_of(proposal)
    elif isinstance(job, RemeasureJob):
        operator, parents, label = "remeasure", (job.candidate,), ""
    else:
        operator, parents, label = "final", (job.subject,), f"held-out trace, round {job.round + 1}"
    return Slot(key=job.key, operator=operator, parents=parents, label=label, stage=stage, elapsed_s=elapsed_s)
