"""An executor without Ray: one task at a time, inside the driver's process, in order of submission.

For tests, for debugging, and for machines where Ray cannot run (`-s cluster.executor=inline`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from population.evaluation import Rejected, Stage
from vibeserve.executor import ChildTask, Completion, Evaluated, Fault, MeasureTask, Mutated


class Shop(Protocol):
    """What carries a task out: `vibeserve.workshop.Workshop`, or a scripted one."""

    def mutate(self, task: ChildTask) -> Mutated | Rejected | Fault: ...

    def measure(self, task: MeasureTask, progress: Progress) -> Evaluated | Fault: ...


class Progress(Protocol):
    """Called with the stage that has begun."""

    def __call__(self, stage: Stage, /) -> None: ...


class InlineExecutor:
    """Carries out the oldest task inside `wait`; `timeout_s` does not interrupt it."""

    evaluate_slots = 1

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._queue: deque[ChildTask | MeasureTask] = deque()
        self._stage: dict[str, tuple[Stage, float]] = {}

    def submit(self, task: ChildTask | MeasureTask) -> None:
        self._queue.append(task)

    def wait(self, timeout_s: float) -> Sequence[Completion]:
        if not self._queue:
            return ()
        task = self._queue.popleft()
        if isinstance(task, MeasureTask):
            return (self._measure(task),)
        key = task.proposal.id
        if task.material is None:
            return (self._measure(task.measure),)
        self._enter(key, Stage.MUTATE)
        outcome = self._shop.mutate(task)
        if isinstance(outcome, Mutated) and outcome.tree not in task.measure.seen_trees:
            measure = replace(task.measure, bundle=outcome.bundle, commit=outcome.commit)
            self._queue.appendleft(measure)  # next in line, once the driver has recorded the commit
        else:
            self._stage.pop(key, None)
        return (Completion(key=key, outcome=outcome),)

    def _measure(self, task: MeasureTask) -> Completion:
        outcome = self._shop.measure(task, lambda stage: self._enter(task.key, stage))
        self._stage.pop(task.key, None)
        return Completion(key=task.key, outcome=outcome)

    def _enter(self, key: str, stage: Stage) -> None:
        self._stage[key] = (stage, time.monotonic())

    def cancel(self, key: str) -> None:
        self._queue = deque(task for task in self._queue if _key(task) != key)
        self._stage.pop(key, None)

    def stages(self) -> dict[str, tuple[Stage, float]]:
        now = time.monotonic()
        return {key: (stage, now - since) for key, (stage, since) in self._stage.items()}

    def close(self) -> None:
        self._queue.clear()


def _key(task: ChildTask | MeasureTask) -> str:
    return task.key if isinstance(task, MeasureTask) else task.proposal.id
