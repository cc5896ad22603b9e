"""Decides the order of everything in a run: propose, submit, record, acknowledge; the ledger's only writer.

Crash-only: every decision is a function of what the ledger holds, so a killed driver goes on where its ledger ends. A
child's commit is stored before its ledger record, and the record before anything is built on it. What completes
together is recorded together, by one sync; how much is kept in flight is `vibeserve.flow`'s decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from population.candidate import Operator, Proposal, candidate_id
from population.errors import InfrastructureError, RunError
from population.evaluation import Rejected, Stage
from population.events import (
    Ended,
    Event,
    Faulted,
    MutationDone,
    Proposed,
    RemeasureStarted,
    SentBack,
    Stopped,
)
from search.policy import Policy
from vibeserve.budget import Budget
from vibeserve.casting import Casting
from vibeserve.dispatcher import Dispatcher
from vibeserve.executor import Completion, Evaluated, Executor, Fault, Made, Unread
from vibeserve.flow import Flow
from vibeserve.intake import Intake
from vibeserve.interrupts import Interrupts
from vibeserve.jobs import ChildJob, Job, JobMaker, RemeasureJob
from vibeserve.records import Records
from vibeserve.repair import Repair
from vibeserve.retries import Retries
from vibeserve.rules import Rules

_TICK_S = 0.5


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
        self._make = JobMaker(rules, records)
        self._flow = Flow(rules.flow)
        self._machines = Dispatcher(executor, self._make, self._flow)
        self._flights = self._machines.flights
        self._retries = Retries(patience_s=rules.patience_s)
        self._interrupts = Interrupts()
        self._casting = Casting(rules, records.state)
        self._budget = Budget(rules, records.state, lambda: executor.clock_s)
        repair = Repair(rules.repairs, records.state, self._budget.more_work)
        self._intake = Intake(records, self._make.chains, repair)
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
                self._record([Stopped(reason=reason, elapsed_s=self._budget.elapsed_s, disclosed=secret)])
        return reason

    def _recover(self) -> None:
        """Put back in flight what the ledger says was in flight; on a new run, that is the seed."""
        state, root = self._state, self._rules.root
        if state.next_number == 0:
            self._record([Proposed(proposal=Proposal(number=0, operator=Operator.SEED))])
        if 0 in state.pending and 0 not in state.mutated:
            made = MutationDone(number=0, commit=root.commit, tree=root.tree, genome=root.genome, summary="seed")
            self._record([made])
        else:
            self._object([made for made in state.mutated.values() if made.objection is not None])
            for number in state.mutated:
                self._flights.wait(ChildJob(proposal=state.pending[number]))
        for number, proposal in state.pending.items():
            if number not in state.mutated:
                self._machines.submit(ChildJob(proposal=proposal))
        for index, candidate in state.remeasuring.items():
            self._flights.put_off(RemeasureJob(index=index, candidate=candidate))

    # --- searching ------------------------------------------------------------------------------------------------

    def _search(self) -> str:
        while not self._interrupts.count:
            reason = self._budget.used_up()
            if reason is None and not self._propose():
                reason = "nothing left to propose"
            self._machines.dispatch()
            self._fill(reason)
            if reason is not None and self._flights.idle:
                return reason
            self._pump()
        return self._drain()

    def _drain(self) -> str:
        """What has begun is finished and recorded; what has not begun is on record already, for a resume."""
        self._machines.withdraw()
        while self._flights:
            self._pump()
        return "interrupted"

    def _propose(self) -> bool:
        """Begin as many children as the flow asks for; False if nothing is in flight and the policy has no more."""
        if 0 in self._state.pending:
            return True
        self._require_scored_seed()
        wanted = self._flow.mutations_for(replace(self._machines.load, left=self._budget.children_left))
        proposals: list[Proposal] = []
        while len(proposals) < wanted and self._budget.used_up(len(proposals)) is None:
            proposal = self._draw(proposals)
            if proposal is None:
                break
            proposals.append(proposal)
        self._record([Proposed(proposal=proposal) for proposal in proposals])
        for proposal in proposals:
            self._machines.submit(ChildJob(proposal=proposal))
        return not wanted or not self._flights.idle

    def _draw(self, drawn: Sequence[Proposal]) -> Proposal | None:
        """The policy's next proposal, after those that are drawn and not on record yet."""
        number = self._state.next_number + len(drawn)
        rng = np.random.default_rng([self._rules.seed, number])
        proposal = self._policy.propose(self._state.archive, [*self._state.pending.values(), *drawn], number, rng)
        return None if proposal is None else self._casting.cast(proposal, drawn)

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
        left = self._rules.wall_time_s is not None and self._budget.time_used_up() is None
        more = self._rules.remeasure and (left if reason is not None else self._flights.children > 0)
        for _ in range(self._flow.remeasurements_for(self._machines.load)):
            job = self._flights.next_put_off() or (self._remeasurement() if more else None)
            if job is None:
                break
            self._machines.submit(job)

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
            self._machines.dispatch()
            self._pump()
        return reason

    # --- with the machines ----------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Wait a moment for completions and record them; a driver that was replaced ends here at the latest."""
        self._records.ledger.require_ours()
        if self._records.stop_marker.exists():
            self._records.stop_marker.unlink(missing_ok=True)
            self._interrupts.count += 1
        with self._interrupts.waiting():
            completions = self._executor.wait(_TICK_S)
        self._settle(completions)
        for job, age_s in self._machines.overdue():
            reason = f"{job.key}: no result after {age_s:.0f} s, far longer than others take"
            if self._make.is_mutation(job) and self._retries.hung(job.key, self._executor.clock_s - age_s):
                self._give_up(job, reason)
            else:
                self._fault(job, Fault(reason=reason))
        self._show(None)

    def _settle(self, completions: Sequence[Completion]) -> None:
        """Everything that has ended, by one sync; then the faults, so that none of them costs another task's result."""
        ended = self._machines.landed(completions)
        made: list[tuple[ChildJob, Made]] = []
        events: list[Event] = []
        for job, outcome in ended:
            if isinstance(outcome, Evaluated):
                events.append(self._intake.evaluated(job, outcome))
            elif isinstance(outcome, Made) and isinstance(job, ChildJob):
                made.append((job, outcome))
        try:
            events += self._store(made)
        finally:
            self._record(events)
        self._send_back([*events, *self._object(events)])
        for job, outcome in ended:
            if isinstance(outcome, Fault):
                self._fault(job, outcome)
            elif isinstance(outcome, Unread) and self._is_draft(job):
                self._fault(job, outcome.fault)
            else:
                self._retries.worked(job.key, self._executor.clock_s, mutation=not isinstance(outcome, Evaluated))

    def _is_draft(self, job: Job) -> bool:
        return isinstance(job, ChildJob) and job.proposal.number in self._state.drafts

    def _store(self, made: Sequence[tuple[ChildJob, Made]]) -> list[Event]:
        """Commits first, then the records: durable when this returns."""
        if not made:
            return []
        self._records.ledger.require_ours()
        with self._records.repository.batch():
            return [event for job, outcome in made for event in self._intake.mutated(job, outcome)]

    def _object(self, events: Sequence[Event]) -> list[Event]:
        """What a judge has objected to is not evaluated: it goes back or ends, on record."""
        objected = [event for event in events if isinstance(event, MutationDone) and event.objection is not None]
        ended: list[Event] = [self._intake.objected(event) for event in objected]
        self._record(ended)
        return ended

    def _send_back(self, events: Sequence[Event]) -> None:
        """Children that were sent back are made again; a driver that drains leaves that to a resume."""
        for event in events:
            if isinstance(event, SentBack) and not self._interrupts.count:
                self._machines.submit(ChildJob(proposal=self._state.pending[event.number]))

    def _fault(self, job: Job, fault: Fault) -> None:
        """Machine faults are retried and never charged; only a child that alone keeps breaking machines is given up."""
        mutation = self._make.is_mutation(job)
        now_s = self._executor.clock_s
        retryable = fault.retryable and not fault.final
        verdict = self._retries.failed(job.key, now_s, mutation=mutation, retryable=retryable, wait_s=fault.wait_s)
        self._record([Faulted(key=job.key, reason=fault.reason, attempt=verdict.attempt, spent=fault.spent)])
        if verdict.wait_s is not None:
            return self._machines.again(job, verdict.wait_s)
        its_own = not (fault.final or (mutation and fault.retryable)) and self._retries.alone(job.key)
        if isinstance(job, ChildJob) and its_own and self._state.archive.scored:
            return self._give_up(job, f"given up after {verdict.attempt} attempts: {fault.reason}")
        raise InfrastructureError(
            f"{fault.reason} (attempt {verdict.attempt}). Nothing is lost: mend the machine, then `vibeserve resume`"
        )

    def _give_up(self, job: Job, reason: str) -> None:
        """The child ends: the machine works for all others."""
        assert isinstance(job, ChildJob)
        stage = Stage.MUTATE if self._make.is_mutation(job) else Stage.BOOT
        self._retries.worked(job.key, self._executor.clock_s, mutation=False)
        self._record([Ended(number=job.proposal.number, evaluation=Rejected(stage=stage, reason=reason[:1000]))])

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
            if isinstance(event, MutationDone) and event.objection is None:
                self._flights.wait(ChildJob(proposal=self._state.pending[event.number]))
            self._show(event)

    def _show(self, event: Event | None) -> None:
        now_s = self._executor.clock_s
        draining = self._interrupts.count > 0
        self._observe(
            Tick(
                jobs=lambda: self._flights.shown(now_s),
                elapsed_s=self._budget.elapsed_s,
                draining=draining,
                event=event,
            )
        )
