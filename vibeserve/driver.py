"""Decides the order of everything in a run: propose, submit, record, acknowledge; the ledger's only writer.

Crash-only: every decision is a function of what the ledger holds, so a killed driver goes on where its ledger ends. A
child's commit is stored before its ledger record, and the record before anything is built on it.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import numpy as np

from population.candidate import Operator, Proposal, candidate_id
from population.errors import ConfigError, InfrastructureError, RunError
from population.evaluation import Rejected, Stage
from population.events import (
    Ended,
    Event,
    Faulted,
    FinalMeasured,
    MutationDone,
    Proposed,
    Remeasured,
    RemeasureStarted,
    Stopped,
)
from population.genome import parse_genome
from population.ledger import Ledger
from population.replay import State
from population.repository import Repository
from search.policy import Policy
from vibeserve.executor import Completion, Evaluated, Executor, Fault, Mutated
from vibeserve.jobs import ChildJob, FinalJob, Job, JobMaker, RemeasureJob
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

    jobs: tuple[tuple[Job, float], ...]
    """In flight, with the seconds since each was submitted."""
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
        self._jobs: dict[str, Job] = {}
        self._since: dict[str, float] = {}
        self._faults: Counter[str] = Counter()
        self._interrupts = 0
        self._waiting = False
        self._started = time.monotonic()
        self._elapsed_before_s = records.state.elapsed_s

    def run(self) -> str:
        """Search until a budget ends it, then measure the front on the held-out trace; returns why it stopped.

        Raises:
            RunError: the seed was rejected, so there is nothing to start from.
            InfrastructureError: the machine failed again and again, or the disk is full; the run can be resumed.
        """
        reason = "failed"
        try:
            with self._signals():
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
                self._append(Stopped(reason=reason, elapsed_s=self.elapsed_s, disclosed=secret))
        return reason

    @property
    def elapsed_s(self) -> float:
        """Seconds of this run's drivers, summed over resumes."""
        return self._elapsed_before_s + time.monotonic() - self._started

    def _recover(self) -> None:
        """Put back in flight what the ledger says was in flight; on a new run, that is the seed."""
        root = self._rules.root
        if self._state.next_number == 0:
            self._append(Proposed(proposal=Proposal(number=0, operator=Operator.SEED)))
        if 0 in self._state.pending and 0 not in self._state.mutated:
            self._append(
                MutationDone(
                    number=0, commit=root.commit, tree=root.tree, genome=root.genome, summary="seed", elapsed_s=0.0
                )
            )
        for number in sorted(self._state.pending):
            self._submit(self._make.child(self._state.pending[number]))
        for index, candidate in sorted(self._state.remeasuring.items()):
            self._submit(self._make.remeasure(index, candidate))

    # --- searching ------------------------------------------------------------------------------------------------

    def _search(self) -> str:
        while True:
            reason = "interrupted" if self._interrupts else self._budget_reason()
            if reason is None and not self._propose():
                reason = "nothing left to propose"
            if reason is not None and not self._interrupts:
                self._use_time_left()
            if reason is not None and not self._jobs:
                return reason
            self._pump()

    def _budget_reason(self) -> str | None:
        """Which budget is used up."""
        if self._rules.children is not None and self._state.next_number > self._rules.children:
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
        """Fill the free slots; False if nothing is in flight and the policy has nothing to propose."""
        state = self._state
        if 0 in state.pending:
            return True
        self._require_scored_seed()
        slots = self._executor.evaluate_slots
        while len(self._jobs) < slots + self._rules.queue_depth and self._budget_reason() is None:
            number = state.next_number
            rng = np.random.default_rng([self._rules.seed, number])
            pending = [state.pending[n] for n in sorted(state.pending)]
            proposal = self._policy.propose(state.archive, pending, number, rng)
            if proposal is None:
                break
            self._append(Proposed(proposal=proposal))
            self._submit(self._make.child(proposal))
        if 0 < len(self._jobs) < slots and self._rules.remeasure:
            self._remeasure_one()
        return bool(self._jobs)

    def _require_scored_seed(self) -> None:
        seed = self._state.archive.children[0].evaluation
        if isinstance(seed, Rejected):
            folder = self._records.children / candidate_id(0)
            raise RunError(
                "expected a seed server that passes the target's own checks, but it was rejected at stage "
                f"'{seed.stage}': {seed.reason}. See {folder}\n{seed.evidence[-2000:]}"
            )

    def _use_time_left(self) -> None:
        """No more children, but a wall time that is not over: measure the front and its contenders once more."""
        if self._rules.wall_time_s is None or not self._rules.remeasure or not self._state.archive.scored:
            return
        while len(self._jobs) < self._executor.evaluate_slots and self._time_reason() is None:
            if not self._remeasure_one():
                break

    def _remeasure_one(self) -> bool:
        """Whether there was something worth measuring once more."""
        index = self._state.next_remeasure
        rng = np.random.default_rng([self._rules.seed, 1, index])
        busy = tuple(self._state.remeasuring.values())
        candidate = self._policy.remeasure(self._state.archive, busy, rng)
        if candidate is None:
            return False
        self._append(RemeasureStarted(index=index, candidate=candidate))
        self._submit(self._make.remeasure(index, candidate))
        return True

    def _finals(self, reason: str) -> str:
        for job in self._make.finals():
            self._submit(job)
        while self._jobs:
            if self._interrupts:
                return "interrupted"
            self._pump()
        return reason

    # --- settling -------------------------------------------------------------------------------------------------

    def _submit(self, job: Job) -> None:
        self._jobs[job.key] = job
        self._since.setdefault(job.key, time.monotonic())
        self._executor.submit(job.task)

    def _done(self, key: str) -> None:
        del self._jobs[key], self._since[key]
        self._faults.pop(key, None)

    def _pump(self) -> None:
        """Wait a moment for completions and record them; a driver that was replaced ends here at the latest."""
        self._records.ledger.require_ours()
        if self._records.stop_marker.exists():
            self._records.stop_marker.unlink(missing_ok=True)
            self._interrupts += 1
        self._waiting = True
        try:
            completions = self._executor.wait(_TICK_S)
        finally:
            self._waiting = False
        for completion in completions:
            if completion.key in self._jobs:
                self._settle(completion)
        self._show(None)

    def _settle(self, completion: Completion) -> None:
        job, outcome = self._jobs[completion.key], completion.outcome
        if isinstance(outcome, Fault):
            self._fault(job, outcome)
        elif isinstance(outcome, Evaluated):
            self._keep_files(job.key, outcome.files)
            self._done(job.key)
            self._append(_evaluated(job, replace(outcome, evaluation=self._state.archive.admit(outcome.evaluation))))
        elif isinstance(job, ChildJob):
            self._mutated(job, outcome)

    def _mutated(self, job: ChildJob, outcome: Mutated | Rejected) -> None:
        """Commit first, then the record. A failed mutation, and a tree that exists already, end the child."""
        number, elapsed_s = job.proposal.number, 0.0
        if isinstance(outcome, Mutated):
            self._keep_files(job.key, outcome.files)
            elapsed_s = outcome.elapsed_s
            record = self._record_of(job, outcome)
            if isinstance(record, MutationDone):
                return self._append(record)
            self._executor.cancel(job.key)
            outcome = record
        self._done(job.key)
        self._append(Ended(number=number, evaluation=outcome, elapsed_s=elapsed_s))

    def _record_of(self, job: ChildJob, outcome: Mutated) -> MutationDone | Rejected:
        twin = self._state.twin_of(outcome.tree, job.proposal.number)
        if twin is not None:
            return Rejected(stage=Stage.DEDUPE, reason=f"the same tree as {twin}")
        self._records.ledger.require_ours()
        repository = self._records.repository
        repository.unbundle(outcome.bundle)
        try:
            genome = parse_genome(repository.read_files(outcome.commit, "*.toml"))
        except ConfigError as error:
            return Rejected(stage=Stage.MUTATE, reason="its component files are malformed", evidence=str(error)[:4000])
        repository.set_ref(job.key, outcome.commit)
        return MutationDone(
            number=job.proposal.number,
            commit=outcome.commit,
            tree=outcome.tree,
            genome=genome,
            summary=outcome.summary,
            elapsed_s=outcome.elapsed_s,
        )

    def _fault(self, job: Job, fault: Fault) -> None:
        """Machine faults are retried and never charged; only a child that alone keeps breaking machines is given up."""
        self._faults[job.key] += 1
        attempt = self._faults[job.key]
        self._append(Faulted(key=job.key, reason=fault.reason, attempt=attempt))
        self._executor.cancel(job.key)
        if fault.retryable and attempt < _ATTEMPTS:
            again = self._make.child(job.proposal) if isinstance(job, ChildJob) else job
            return self._submit(again)
        alone = len(self._faults) == 1 and self._state.archive.scored
        if isinstance(job, ChildJob) and alone:
            self._done(job.key)
            verdict = Rejected(stage=Stage.BOOT, reason=f"given up after {attempt} attempts: {fault.reason}"[:1000])
            return self._append(Ended(number=job.proposal.number, evaluation=verdict, elapsed_s=0.0))
        raise InfrastructureError(
            f"{fault.reason} (attempt {attempt}). Nothing is lost: mend the machine, then `vibeserve resume`"
        )

    def _keep_files(self, key: str, files: Sequence[tuple[str, str]]) -> None:
        folder = self._records.children / key
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in files:
                (folder / Path(name).name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InfrastructureError(f"cannot write {folder}: {error.strerror}; free space, then resume") from error

    def _append(self, event: Event) -> None:
        """Durable in the ledger first, then part of the state: the state is always a replay of the ledger."""
        self._state.check(event)
        self._state.apply(self._records.ledger.append(event))
        self._show(event)

    def _show(self, event: Event | None) -> None:
        now = time.monotonic()
        jobs = tuple((job, now - self._since[key]) for key, job in self._jobs.items())
        self._observe(Tick(jobs=jobs, elapsed_s=self.elapsed_s, draining=self._interrupts > 0, event=event))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM: the first drains, the second stops hard. Installed after Ray, which sets its own."""

        def handle(signum: int, frame: FrameType | None) -> None:
            self._interrupts += 1
            if self._interrupts > 1 and self._waiting:  # never in the middle of a record
                raise KeyboardInterrupt

        try:
            before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread (tests, notebooks): the caller owns the signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _evaluated(job: Job, done: Evaluated) -> Event:
    evaluation, elapsed_s, place = done.evaluation, done.elapsed_s, done.place
    match job:
        case ChildJob():
            return Ended(number=job.proposal.number, evaluation=evaluation, elapsed_s=elapsed_s, place=place)
        case RemeasureJob():
            return Remeasured(
                index=job.index, candidate=job.candidate, evaluation=evaluation, elapsed_s=elapsed_s, place=place
            )
        case FinalJob():
            return FinalMeasured(
                subject=job.subject, round=job.round, evaluation=evaluation, elapsed_s=elapsed_s, place=place
            )
