"""Decides the order of everything in a run: propose, submit, record, acknowledge; the ledger's only writer.

Crash-only: every decision is a function of what the ledger holds, so a killed driver goes on where its ledger ends. A
child's commit is stored before its ledger record, and the record before anything is built on it. What completes
together is recorded together, by one sync; how much is kept in flight is `vibeserve.flow`'s decision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from population.candidate import Operator, Proposal, candidate_id
from population.errors import InfrastructureError, RunError
from population.evaluation import Rejected, Stage
from population.events import Ended, Event, Faulted, MutationDone, Proposed, RemeasureStarted, Stopped
from population.ledger import Ledger
from population.replay import State
from population.repository import Repository
from search.policy import Policy
from vibeserve.executor import Completion, Evaluated, Executor, Fault, Mutated, MutateTask
from vibeserve.flights import Flights
from vibeserve.flow import Flow, Load
from vibeserve.intake import Intake
from vibeserve.interrupts import Interrupts
from vibeserve.jobs import ChildJob, Job, JobMaker, RemeasureJob
from vibeserve.rules import Rules

_TICK_S = 0.5
_ATTEMPTS = 3
"""How often the machine may fail under one task before the task is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Where a run's truth lives: the ledger, its replay, the commits and the children's files."""

    ledger: Ledger
    state: State
    repository: Repository
    children: Path
    stop_marker: Path
    """A file that asks the driver to drain, for those who cannot send it a signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What an observer is shown between two waits."""

    jobs: Callable[[], tuple[tuple[Job, float], ...]]
    """Everything in flight, with the seconds that each has been in its stage; counted when asked for."""
    elapsed_s: float
    draining: bool
    event: Event | None = None
    """Set when the tick reports a fresh record, None when only time has passed."""


class Driver:
    """One run, from wherever its ledger ends to its stop. Use once."""

    def __init__(
        self, rules: Rules, records: Records, policy: Policy, executor: Executor, observe: Callable[[Tick], None]
    ) -> None:
        self._rules, self._records, self._policy, self._executor = rules, records, policy, executor
        self._observe = observe
        self._state = records.state
        self._make = JobMaker(rules, records.state, records.repository)
        self._intake = Intake(records.state, records.repository, records.children, self._make.chains)
        self._flights, self._flow = Flights(), Flow(rules.flow)
        self._faults: Counter[str] = Counter()
        self._interrupts = Interrupts()
        self._started_s = executor.clock_s
        self._elapsed_before_s = records.state.elapsed_s
        for event in records.ledger.events():
            self._flow.observe(event)

    def run(self) -> str:
        """Search until a budget ends it, then measure the front on the held-out trace; returns why it stopped.

        Raises:
            RunError: the seed was rejected, so there is nothing to start from.
            InfrastructureError: the machine failed again and again, or the disk is full; the run can be resumed.
        """
        reason = "failed"
        try:
            with self._interrupts.installed():
                self._recover()
                reason = self._search()
                if reason != "interrupted":
                    reason = self._finals(reason)
        except KeyboardInterrupt:
            reason = "interrupted"
        finally:
            self._executor.close()
            if not self._records.ledger.failed:
                over = reason not in ("interrupted", "failed")
                secret = {"secret": self._rules.secret.decode("ascii")} if over else {}
                self._record([Stopped(reason=reason, elapsed_s=self.elapsed_s, disclosed=secret)])
        return reason

    @property
    def elapsed_s(self) -> float:
        """Seconds of this run's drivers, summed over resumes."""
        return self._elapsed_before_s + self._executor.clock_s - self._started_s

    def _recover(self) -> None:
        """Put back in flight what the ledger says was in flight; on a new run, that is the seed."""
        state, root = self._state, self._rules.root
        if state.next_number == 0:
            self._record([Proposed(proposal=Proposal(number=0, operator=Operator.SEED))])
        if 0 in state.pending and 0 not in state.mutated:
            made = MutationDone(number=0, commit=root.commit, tree=root.tree, genome=root.genome, summary="seed")
            self._record([made])
        else:
            for number in state.mutated:
                self._flights.wait(ChildJob(proposal=state.pending[number]))
        for number, proposal in state.pending.items():
            if number not in state.mutated:
                self._submit(ChildJob(proposal=proposal))
        for index, candidate in state.remeasuring.items():
            self._flights.put_off(RemeasureJob(index=index, candidate=candidate))

    # --- searching ------------------------------------------------------------------------------------------------

    def _search(self) -> str:
        while not self._interrupts.count:
            reason = self._budget_reason()
            if reason is None and not self._propose():
                reason = "nothing left to propose"
            self._dispatch()
            self._fill(reason)
            if reason is not None and self._flights.idle:
                return reason
            self._pump()
        return self._drain()

    def _drain(self) -> str:
        """What has begun is finished and recorded; what has not begun is on record already, for a resume."""
        for job in self._flights.lined_up():
            self._executor.cancel(job.key)
            self._flights.land(job.key)
        while self._flights:
            self._pump()
        return "interrupted"

    def _budget_reason(self, drawn: int = 0) -> str | None:
        """Which budget is used up, once `drawn` more children are proposed."""
        if self._rules.children is not None and self._state.next_number + drawn > self._rules.children:
            return "budget: children"
        return self._time_reason()

    def _time_reason(self) -> str | None:
        """Which budget of time is used up; a child that could not end within the wall time is not begun."""
        rules, state = self._rules, self._state
        if rules.wall_time_s is not None and self.elapsed_s + state.mean_cost_s > rules.wall_time_s:
            return "budget: wall time"
        if rules.gpu_hours is not None and self.gpu_hours >= rules.gpu_hours:
            return "budget: gpu hours"
        return None

    @property
    def gpu_hours(self) -> float:
        """GPU-hours leased to evaluations that have ended."""
        return self._state.evaluate_s * self._rules.gpus_per_evaluation / 3600

    def _propose(self) -> bool:
        """Begin as many children as the flow asks for; False if nothing is in flight and the policy has no more."""
        if 0 in self._state.pending:
            return True
        self._require_scored_seed()
        wanted = self._flow.mutations_for(self._load())
        proposals: list[Proposal] = []
        while len(proposals) < wanted and self._budget_reason(len(proposals)) is None:
            proposal = self._draw(proposals)
            if proposal is None:
                break
            proposals.append(proposal)
        self._record([Proposed(proposal=proposal) for proposal in proposals])
        for proposal in proposals:
            self._submit(ChildJob(proposal=proposal))
        return not wanted or not self._flights.idle

    def _draw(self, drawn: Sequence[Proposal]) -> Proposal | None:
        """The policy's next proposal, after those that are drawn and not on record yet."""
        number = self._state.next_number + len(drawn)
        rng = np.random.default_rng([self._rules.seed, number])
        return self._policy.propose(self._state.archive, [*self._state.pending.values(), *drawn], number, rng)

    def _require_scored_seed(self) -> None:
        seed = self._state.archive.children[0].evaluation
        if isinstance(seed, Rejected):
            folder = self._records.children / candidate_id(0)
            raise RunError(
                "expected a seed server that passes the target's own checks, but it was rejected at stage "
                f"'{seed.stage}': {seed.reason}. See {folder}\n{seed.evidence[-2000:]}"
            )

    def _fill(self, reason: str | None) -> None:
        """Slots that no child wants measure the front and its contenders: during the search, and in time that is left.

        A search that ended otherwise begins nothing new, but ends what was put off.
        """
        left = self._rules.wall_time_s is not None and self._time_reason() is None
        more = self._rules.remeasure and (left if reason is not None else self._flights.children > 0)
        for _ in range(self._flow.remeasurements_for(self._load())):
            job = self._flights.next_put_off() or (self._remeasurement() if more else None)
            if job is None:
                break
            self._submit(job)

    def _remeasurement(self) -> RemeasureJob | None:
        """What is worth measuring once more, on record."""
        index, state = self._state.next_remeasure, self._state
        if not state.archive.scored:
            return None
        rng = np.random.default_rng([self._rules.seed, 1, index])
        candidate = self._policy.remeasure(state.archive, tuple(state.remeasuring.values()), rng)
        if candidate is None:
            return None
        self._record([RemeasureStarted(index=index, candidate=candidate)])
        return RemeasureJob(index=index, candidate=candidate)

    def _finals(self, reason: str) -> str:
        for job in self._make.finals():
            self._flights.wait(job)
        while not self._flights.idle:
            if self._interrupts.count:
                return "interrupted"
            self._dispatch()
            self._pump()
        return reason

    # --- with the machines ----------------------------------------------------------------------------------------

    def _load(self) -> Load:
        executor = self._executor
        return self._flights.load(executor.evaluate_slots, executor.clock_s, executor.overlaps)

    def _submit(self, job: Job) -> None:
        task = self._make.task(job)
        self._executor.submit(task)
        if isinstance(task, MutateTask) and isinstance(job, ChildJob):
            self._flights.mutate(job, self._executor.clock_s)
        else:
            self._flights.evaluate(job)

    def _dispatch(self) -> None:
        """Children that are ready take the slots, if need be those of re-measurements."""
        for _ in range(self._flow.preempted_for(self._load())):
            job = self._flights.youngest_remeasurement()
            self._executor.cancel(job.key)
            self._flights.land(job.key)
            self._flights.put_off(job)
        for _ in range(self._flow.evaluations_for(self._load())):
            self._submit(self._flights.next_ready())
        self._flights.begin(self._executor.evaluate_slots, self._executor.clock_s)

    def _pump(self) -> None:
        """Wait a moment for completions and record them; a driver that was replaced ends here at the latest."""
        self._records.ledger.require_ours()
        if self._records.stop_marker.exists():
            self._records.stop_marker.unlink(missing_ok=True)
            self._interrupts.count += 1
        with self._interrupts.waiting():
            completions = self._executor.wait(_TICK_S)
        self._settle(completions)
        self._give_up_the_overdue()
        self._show(None)

    def _settle(self, completions: Sequence[Completion]) -> None:
        """Everything that has ended, by one sync; then the faults, so that none of them costs another task's result."""
        ended = [(self._flights.land(c.key), c.outcome) for c in completions if c.key in self._flights]
        made: list[tuple[ChildJob, Mutated | Rejected]] = []
        events: list[Event] = []
        for job, outcome in ended:
            if isinstance(outcome, Evaluated):
                events.append(self._intake.evaluated(job, outcome))
            elif isinstance(outcome, Mutated | Rejected) and isinstance(job, ChildJob):
                made.append((job, outcome))
        try:
            events += self._store(made)
        finally:
            self._record(events)
        for job, outcome in ended:
            if isinstance(outcome, Fault):
                self._fault(job, outcome)
            else:
                self._faults.pop(job.key, None)

    def _store(self, made: Sequence[tuple[ChildJob, Mutated | Rejected]]) -> list[Event]:
        """Commits first, then the records: durable when this returns."""
        if not made:
            return []
        self._records.ledger.require_ours()
        with self._records.repository.batch():
            return [self._intake.mutated(job, outcome) for job, outcome in made]

    def _give_up_the_overdue(self) -> None:
        """A task that takes far longer than all others hangs: another machine may do better."""
        flow = self._flow
        deadlines = flow.deadline_s(flow.mutation), flow.deadline_s(flow.evaluation)
        for job, age_s in self._flights.overdue(self._executor.clock_s, *deadlines):
            self._executor.cancel(job.key)
            self._flights.land(job.key)
            self._fault(job, Fault(reason=f"{job.key}: no result after {age_s:.0f} s, far longer than others take"))

    def _fault(self, job: Job, fault: Fault) -> None:
        """Machine faults are retried and never charged; only a child that alone keeps breaking machines is given up."""
        self._faults[job.key] += 1
        attempt = self._faults[job.key]
        self._record([Faulted(key=job.key, reason=fault.reason, attempt=attempt)])
        if fault.retryable and attempt < _ATTEMPTS:
            return self._again(job)
        alone = len(self._faults) == 1 and self._state.archive.scored
        if isinstance(job, ChildJob) and alone:
            del self._faults[job.key]
            verdict = Rejected(stage=Stage.BOOT, reason=f"given up after {attempt} attempts: {fault.reason}"[:1000])
            return self._record([Ended(number=job.proposal.number, evaluation=verdict)])
        raise InfrastructureError(
            f"{fault.reason} (attempt {attempt}). Nothing is lost: mend the machine, then `vibeserve resume`"
        )

    def _again(self, job: Job) -> None:
        """At once, and before everything that waits."""
        if isinstance(job, RemeasureJob):
            self._flights.put_off(job)
        elif isinstance(job, ChildJob) and job.proposal.number not in self._state.mutated:
            self._submit(job)
        else:
            self._flights.wait_first(job)

    # --- on record ------------------------------------------------------------------------------------------------

    def _record(self, events: Sequence[Event]) -> None:
        """Durable in the ledger first, then part of the state: the state is always a replay of the ledger."""
        for event in events:
            if event is events[0] or not isinstance(event, Proposed):  # their numbers follow each other
                self._state.check(event)
        for event in self._records.ledger.append_all(events):
            self._state.apply(event)
            self._flow.observe(event)
            self._intake.recorded(event)
            if isinstance(event, MutationDone):
                self._flights.wait(ChildJob(proposal=self._state.pending[event.number]))
            self._show(event)

    def _show(self, event: Event | None) -> None:
        now_s = self._executor.clock_s
        draining = self._interrupts.count > 0
        self._observe(
            Tick(jobs=lambda: self._flights.shown(now_s), elapsed_s=self.elapsed_s, draining=draining, event=event)
        )
