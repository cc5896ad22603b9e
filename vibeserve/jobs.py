"""Decides what is sent to the machines for a child, a re-measurement or a final measurement.

A job says what is to be done; its task is made from the run's state at the moment it is sent, so the same state gives
the same task, also after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from population.candidate import Operator, Proposal, candidate_id
from search import racing
from vibeserve.briefing import Briefing
from vibeserve.chains import Chains
from vibeserve.executor import Delta, Draft, MeasureTask, MutateTask, Task
from vibeserve.records import Records
from vibeserve.rules import Root, Rules

_READ_BRIEFS = frozenset({Operator.AGENT, Operator.MERGE})
"""A merge is git's work, and a model's where git finds a conflict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildJob:
    """A child of the search, to be mutated, or to be evaluated once its commit is on record; key `c000012`."""

    proposal: Proposal

    @property
    def key(self) -> str:
        return self.proposal.id


@dataclass(frozen=True, slots=True, kw_only=True)
class RemeasureJob:
    """One more measurement of a candidate, while slots are idle; key `r000003`."""

    index: int
    candidate: str

    @property
    def key(self) -> str:
        return f"r{self.index:06d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalJob:
    """A measurement on the held-out trace; key `f-c000012-0`, `f-sequential-kv-1`."""

    subject: str
    """Candidate id, or a baseline's name."""
    round: int

    @property
    def key(self) -> str:
        return f"f-{self.subject}-{self.round}"


Job = ChildJob | RemeasureJob | FinalJob


class JobMaker:
    """Makes the jobs and tasks of one run from its state."""

    def __init__(self, rules: Rules, records: Records) -> None:
        self._rules, self._state = rules, records.state
        self.chains = Chains(records.repository, rules.root.commit)
        self._briefing = None if rules.ground is None else Briefing(rules.ground, records)

    def task(self, job: Job) -> Task:
        """What the job's next stage needs."""
        match job:
            case ChildJob():
                return self._child(job.proposal)
            case RemeasureJob():  # judged before; the audit still runs, on the search's trace with fresh contents
                return self._again(job.key, "search", job.candidate)
            case FinalJob():
                return self._again(job.key, "held-out", job.subject)

    def is_mutation(self, job: Job) -> bool:
        """Whether the job's next stage is to make a child's commit."""
        return isinstance(job, ChildJob) and job.proposal.number not in self._state.mutated

    def finals(self) -> list[FinalJob]:
        """What is still to be measured on the held-out trace: seed, baselines and front, in turn and back (ABBA)."""
        subjects = {candidate_id(0), *self._rules.baselines, *self._state.archive.front}
        return [
            FinalJob(subject=subject, round=round_)
            for round_ in range(self._rules.final_repeats)
            for subject in sorted(subjects, reverse=bool(round_ % 2))
            if (subject, round_) not in self._state.finals
        ]

    def _child(self, proposal: Proposal) -> Task:
        """From the parents; or from the child's own commit, if its mutation is on record already."""
        archive, done = self._state.archive, self._state.mutated.get(proposal.number)
        chain = self.chains.to(archive, proposal.parents)
        if done is None:
            parents = tuple(archive.candidates[parent].commit for parent in proposal.parents)
            return self._mutation(MutateTask(proposal=proposal, parents=parents, chain=chain))
        attempt = len(self._state.attempts.get(proposal.number, ()))
        return MeasureTask(
            key=proposal.id,
            trace_seed=self._rules.trace_seed("search"),
            content_seed=self._rules.content_seed(f"{proposal.id}-{attempt}" if attempt else proposal.id),
            commit=done.commit,
            chain=self.chains.then(chain, done.commit),
            bar=racing.bar(archive) if self._rules.racing and proposal.number else (),
            repeats=self._rules.repeats,
            profile=self._rules.profile,
        )

    def _mutation(self, task: MutateTask) -> MutateTask:
        """With what its maker is to know, where somebody reads it."""
        number = task.proposal.number
        if (made := self._state.drafts.get(number)) is not None:
            attempt = len(self._state.attempts.get(number, ()))
            draft = Draft(commit=made.commit, summary=made.summary, changed=made.changed, attempt=attempt)
            return replace(task, chain=self.chains.then(task.chain, made.commit), draft=draft)
        if self._briefing is None or task.proposal.operator not in _READ_BRIEFS:
            return task
        proposal, parent = task.proposal, task.proposal.parents[0]
        task = replace(task, brief=self._briefing.brief(proposal))
        if proposal.operator is Operator.AGENT:
            task = replace(task, advice=self._state.advice.get(parent, ""))
        if attempts := self._state.attempts.get(proposal.number):
            returned = self._briefing.returned(proposal, self._rules.repairs)
            return replace(task, chain=self.chains.then(task.chain, attempts[-1].commit), returned=returned)
        if proposal.operator is Operator.AGENT and self._rules.advised and not task.advice:
            task = replace(task, profile=self._briefing.profile(parent))
        return task

    def _again(self, key: str, trace: str, subject: str) -> MeasureTask:
        commit, chain = self._travel(subject)
        return MeasureTask(
            key=key,
            trace_seed=self._rules.trace_seed(trace),
            content_seed=self._rules.content_seed(key),
            commit=commit,
            chain=chain,
            repeats=self._rules.repeats,
            judged=False,
        )

    def _travel(self, subject: str) -> tuple[str, tuple[Delta, ...]]:
        baseline: Root | None = self._rules.baselines.get(subject)
        if baseline is not None:
            return baseline.commit, self.chains.then((), baseline.commit)
        archive = self._state.archive
        return archive.candidates[subject].commit, self.chains.to(archive, (subject,))
