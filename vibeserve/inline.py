"""An executor without Ray: one task at a time, inside the driver's process, in order of submission.

For tests, for debugging, and for machines where Ray cannot run (`-s cluster.executor=inline`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from population.evaluation import Stage
from vibeserve.executor import Completion, Evaluated, Fault, Made, MeasureTask, MutateTask, Outcome, Task


class Shop(Protocol):
    """What carries a task out: `vibeserve.workshop.Workshop`, or a scripted one."""

    def mutate(self, task: MutateTask) -> Made | Fault: ...

    def measure(self, task: MeasureTask, progress: Progress) -> Evaluated | Fault: ...


class Progress(Protocol):
    """Called with the stage that has begun."""

    def __call__(self, stage: Stage, /) -> None: ...


class InlineExecutor:
    """Carries out the oldest task inside `wait`; `timeout_s` does not interrupt it."""

    evaluate_slots = 1
    overlaps = False

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._queue: deque[Task] = deque()
        self._stage: dict[str, tuple[Stage, float]] = {}

    @property
    def clock_s(self) -> float:
        return time.monotonic()

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def wait(self, timeout_s: float) -> Sequence[Completion]:
        if not self._queue:
            time.sleep(timeout_s)  # what the driver waits for is not here
            return ()
        task = self._queue.popleft()
        outcome = self._carry_out(task)
        self._stage.pop(task.key, None)
        return (Completion(key=task.key, outcome=outcome),)

    def _carry_out(self, task: Task) -> Outcome:
        if isinstance(task, MeasureTask):
            return self._shop.measure(task, lambda stage: self._enter(task.key, stage))
        self._enter(task.key, Stage.MUTATE)
        return self._shop.mutate(task)

    def _enter(self, key: str, stage: Stage) -> None:
        self._stage[key] = (stage, time.monotonic())

    def cancel(self, key: str) -> None:
        self._queue = deque(task for task in self._queue if task.key != key)
        self._stage.pop(key, None)

    def stages(self) -> dict[str, tuple[Stage, float]]:
        now = time.monotonic()
        return {key: (stage, now - since) for key, (stage, since) in self._stage.items()}

    def close(self) -> None:
        self._queue.clear()
