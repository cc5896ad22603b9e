"""Decides nothing: keeps count of what is with the executor, since when, and of what waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from vibeserve.flow import Load
from vibeserve.jobs import ChildJob, Job, RemeasureJob


@dataclass(slots=True)
class _Stage:
    """Tasks of one stage: those that run, in the order in which they began, and the sum of those moments."""

    began: dict[str, float]
    """Key → the moment, s."""
    sum_s: float = 0.0

    def begin(self, key: str, now_s: float) -> None:
        self.began[key] = now_s
        self.sum_s += now_s

    def end(self, key: str) -> bool:
        """Whether it was running."""
        since_s = self.began.pop(key, None)
        if since_s is not None:
            self.sum_s = self.sum_s - since_s if self.began else 0.0
        return since_s is not None

    def overdue(self, now_s: float, deadline_s: float | None) -> Iterator[tuple[str, float]]:
        """Keys that run for longer, with their age; the oldest first, so that nothing else is looked at."""
        for key, since_s in self.began.items():
            if deadline_s is None or now_s - since_s <= deadline_s:
                return
            yield key, now_s - since_s


class Flights:
    """The work of one driver between proposal and end. Keys are those of tasks.

    A mutation runs from its submission on. An evaluation runs from when a slot was free for it: executors begin
    evaluations about in order of submission, so of those submitted as many as there are slots, the oldest, are running.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        """With the executor."""
        self._ready: deque[Job] = deque()
        self._mutating, self._running = _Stage({}), _Stage({})
        self._lined_up: dict[str, None] = {}
        self._remeasuring: dict[str, None] = {}
        self._put_off: deque[RemeasureJob] = deque()
        self._delayed: list[tuple[float, Job]] = []

    def __bool__(self) -> bool:
        """Whether anything is with the executor."""
        return bool(self._jobs)

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight at all, with the executor or waiting for it."""
        return not (self._jobs or self._ready or self._put_off or self._delayed)

    # --- waiting ------------------------------------------------------------------------------------------------------

    @property
    def children(self) -> int:
        """Children and final measurements, wherever they are; without re-measurements."""
        return len(self._jobs) - len(self._remeasuring) + len(self._ready) + len(self._delayed)

    def wait(self, job: Job) -> None:
        """A job waits to be evaluated, behind all others."""
        self._ready.append(job)

    def wait_first(self, job: Job) -> None:
        """A job waits to be evaluated, before all others."""
        self._ready.appendleft(job)

    def next_ready(self) -> Job:
        """Takes the oldest of those that wait."""
        return self._ready.popleft()

    def put_off(self, job: RemeasureJob) -> None:
        """A re-measurement has lost its slot to a child."""
        self._put_off.append(job)

    def next_put_off(self) -> RemeasureJob | None:
        """Takes the oldest re-measurement that was put off."""
        return self._put_off.popleft() if self._put_off else None

    def delay(self, job: Job, due_s: float) -> None:
        """A mutation is not tried again before that moment; until then it counts as one that runs."""
        self._delayed.append((due_s, job))

    def due(self, now_s: float) -> tuple[Job, ...]:
        """Takes those that are to be tried again now."""
        due = tuple(job for due_s, job in self._delayed if due_s <= now_s)
        if due:
            self._delayed = [(due_s, job) for due_s, job in self._delayed if due_s > now_s]
        return due

    # --- with the executor ------------------------------------------------------------------------------------------

    def mutate(self, job: ChildJob, now_s: float) -> None:
        """The child's mutation was submitted."""
        self._jobs[job.key] = job
        self._mutating.begin(job.key, now_s)

    def evaluate(self, job: Job) -> None:
        """The job's evaluation was submitted."""
        self._jobs[job.key] = job
        self._lined_up[job.key] = None
        if isinstance(job, RemeasureJob):
            self._remeasuring[job.key] = None

    def __contains__(self, key: str) -> bool:
        """Whether the task is with the executor."""
        return key in self._jobs

    def land(self, key: str) -> Job:
        """The task has ended or was cancelled."""
        job = self._jobs.pop(key)
        self._remeasuring.pop(key, None)
        if not self._mutating.end(key) and not self._running.end(key):
            self._lined_up.pop(key, None)
        return job

    def begin(self, slots: int, now_s: float) -> None:
        """Slots are free for those that are lined up."""
        while self._lined_up and len(self._running.began) < slots:
            key = next(iter(self._lined_up))
            del self._lined_up[key]
            self._running.begin(key, now_s)

    def lined_up(self) -> tuple[Job, ...]:
        """Jobs that were submitted and have no slot yet."""
        return tuple(self._jobs[key] for key in self._lined_up)

    def youngest_remeasurement(self) -> RemeasureJob:
        """The one that has the least to lose."""
        job = self._jobs[next(reversed(self._remeasuring))]
        assert isinstance(job, RemeasureJob)
        return job

    def overdue(
        self, now_s: float, mutation_s: float | None, evaluation_s: float | None
    ) -> tuple[tuple[Job, float], ...]:
        """What runs for longer than its stage's deadline (None: any time is fine), with its age, s."""
        late = (*self._mutating.overdue(now_s, mutation_s), *self._running.overdue(now_s, evaluation_s))
        return tuple((self._jobs[key], age_s) for key, age_s in late)

    # --- looking ------------------------------------------------------------------------------------------------------

    def load(self, slots: int, now_s: float, overlaps: bool) -> Load:
        """The counts that decisions are made from."""
        mutating = len(self._mutating.began)
        return Load(
            slots=slots,
            mutating=mutating + len(self._delayed),
            mutating_s=max(0.0, mutating * now_s - self._mutating.sum_s),
            ready=len(self._ready),
            evaluating=len(self._jobs) - mutating - len(self._remeasuring),
            remeasuring=len(self._remeasuring),
            overlaps=overlaps,
        )

    def shown(self, now_s: float) -> tuple[tuple[Job, float], ...]:
        """Everything that is in flight with its age in its stage, s; what waits has none."""
        began = self._mutating.began | self._running.began
        jobs = (*self._jobs.values(), *self._ready, *(job for _, job in self._delayed))
        return tuple((job, now_s - began.get(job.key, now_s)) for job in jobs)
