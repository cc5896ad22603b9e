"""Decides when work goes to the machines: what is submitted, what gives way to it, what is taken back."""

from __future__ import annotations

from collections.abc import Sequence

from vibeserve.executor import Completion, Executor, MutateTask, Outcome
from vibeserve.flights import Flights
from vibeserve.flow import Flow, Load
from vibeserve.jobs import ChildJob, Job, JobMaker, RemeasureJob


class Dispatcher:
    """Keeps the executor fed as the flow says. It records nothing: whatever it submits is on record already."""

    def __init__(self, executor: Executor, make: JobMaker, flow: Flow) -> None:
        self._executor, self._make, self._flow = executor, make, flow
        self.flights = Flights()

    @property
    def load(self) -> Load:
        """What is in flight now."""
        executor = self._executor
        return self.flights.load(executor.evaluate_slots, executor.clock_s, executor.overlaps)

    def submit(self, job: Job) -> None:
        """The job's next stage begins, or is lined up by the executor."""
        task = self._make.task(job)
        self._executor.submit(task)
        if isinstance(task, MutateTask) and isinstance(job, ChildJob):
            self.flights.mutate(job, self._executor.clock_s)
        else:
            self.flights.evaluate(job)

    def again(self, job: Job, wait_s: float = 0.0) -> None:
        """The job's stage once more, after a while or at once; then before everything that waits."""
        if wait_s:
            self.flights.delay(job, self._executor.clock_s + wait_s)
        elif isinstance(job, RemeasureJob):
            self.flights.put_off(job)
        elif self._make.is_mutation(job):
            self.submit(job)
        else:
            self.flights.wait_first(job)

    def dispatch(self) -> None:
        """Children that are ready take the slots, if need be those of re-measurements."""
        for job in self.flights.due(self._executor.clock_s):
            self.again(job)
        for _ in range(self._flow.preempted_for(self.load)):
            least = self.flights.youngest_remeasurement()
            self._take_back(least)
            self.flights.put_off(least)
        for _ in range(self._flow.evaluations_for(self.load)):
            self.submit(self.flights.next_ready())
        self.flights.begin(self._executor.evaluate_slots, self._executor.clock_s)

    def landed(self, completions: Sequence[Completion]) -> list[tuple[Job, Outcome]]:
        """What has ended, with its job; what was taken back before is not among it."""
        return [(self.flights.land(c.key), c.outcome) for c in completions if c.key in self.flights]

    def withdraw(self) -> None:
        """Takes back what has not begun."""
        for job in self.flights.lined_up():
            self._take_back(job)

    def overdue(self) -> list[tuple[Job, float]]:
        """Takes back what runs for so much longer than others that it hangs, and says for how long, s."""
        flow = self._flow
        deadlines_s = flow.deadline_s(flow.mutation), flow.deadline_s(flow.evaluation)
        late = list(self.flights.overdue(self._executor.clock_s, *deadlines_s))
        for job, _ in late:
            self._take_back(job)
        return late

    def _take_back(self, job: Job) -> None:
        self._executor.cancel(job.key)
        self.flights.land(job.key)
