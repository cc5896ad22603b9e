"""Decides what a completion amounts to: the commit that is kept, the files beside it, and the record.

A child's commit is stored before its record is written. A tree that exists already, ended or in flight, ends the child:
no tree is evaluated twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from population.candidate import candidate_id
from population.errors import ConfigError, InfrastructureError
from population.evaluation import Rejected, Stage
from population.events import Advised, Drafted, Ended, Event, FinalMeasured, MutationDone, Remeasured, SentBack
from population.genome import parse_genome
from vibeserve.chains import Chains
from vibeserve.executor import Delta, Evaluated, Failed, Made, Mutated, Unread
from vibeserve.jobs import ChildJob, FinalJob, Job, RemeasureJob
from vibeserve.records import Records
from vibeserve.repair import Repair


class Intake:
    """Makes records of what the machines have sent. It writes none: the driver does."""

    def __init__(self, records: Records, chains: Chains, repair: Repair) -> None:
        self._state, self._repository, self._children = records.state, records.repository, records.children
        self._chains, self._repair = chains, repair
        state = records.state
        made: list[Drafted | MutationDone] = [*state.drafts.values(), *state.mutated.values()]
        self._flying = {each.tree: candidate_id(each.number) for each in made}
        """Trees of children that have not ended, those of this moment's records among them."""

    def mutated(self, job: ChildJob, outcome: Made) -> list[Event]:
        """To be called inside the repository's batch: the records may be written once that is stored."""
        if isinstance(outcome, Unread):
            return self._unread(job, outcome.mutated)
        if isinstance(outcome, Rejected):
            outcome = Failed(rejected=outcome, elapsed_s=0.0)
        self._keep_files(job.key, outcome.files)
        advised = [Advised(candidate=job.proposal.parents[0], advice=outcome.advice)] if outcome.advice else []
        return [*advised, self._made(job, outcome)]

    def _made(self, job: ChildJob, outcome: Mutated | Failed) -> MutationDone | Ended:
        if isinstance(outcome, Failed):
            return self._unmade(job, outcome.rejected, outcome)
        trees, back = self._state.archive.trees, self._state.attempted
        twin = trees.get(outcome.tree) or back.get(outcome.tree) or self._flying.get(outcome.tree)
        if twin is not None and twin != self._draft_of(job, outcome.tree):
            return self._unmade(job, Rejected(stage=Stage.DEDUPE, reason=f"the same tree as {twin}"), outcome)
        return self._stored(job, outcome)

    def _stored(self, job: ChildJob, outcome: Mutated) -> MutationDone | Ended:
        number = job.proposal.number
        draft = self._state.drafts.get(number)
        self._repository.absorb(outcome.delta)
        try:
            genome = parse_genome(self._repository.read_files(outcome.commit, "*.toml"))
        except ConfigError as error:
            verdict = Rejected(
                stage=Stage.MUTATE, reason="its component files are malformed", evidence=str(error)[:4000]
            )
            return self._unmade(job, verdict, outcome)
        self._repository.set_ref(job.key, outcome.commit)
        self._chains.keep(Delta(commit=outcome.commit, data=outcome.delta))
        self._flying[outcome.tree] = job.key
        return MutationDone(
            number=number,
            commit=outcome.commit,
            tree=outcome.tree,
            genome=genome,
            summary=outcome.summary,
            elapsed_s=outcome.elapsed_s + (draft.elapsed_s if draft else 0.0),
            spent=outcome.spent,
            objection=outcome.objection,
        )

    def _unread(self, job: ChildJob, made: Mutated) -> list[Event]:
        """A draft, unless there is nothing to be read: a tree that is known already, or that makes no sense."""
        *advised, event = self.mutated(job, made)
        if not isinstance(event, MutationDone):
            return [*advised, event]
        draft = Drafted(
            number=event.number,
            commit=made.commit,
            tree=made.tree,
            summary=made.summary,
            changed=made.changed,
            elapsed_s=made.elapsed_s,
            spent=made.spent,
        )
        return [*advised, draft]

    def _draft_of(self, job: ChildJob, tree: str) -> str | None:
        """The child itself, if this is its own tree that was still to be read."""
        draft = self._state.drafts.get(job.proposal.number)
        return job.key if draft is not None and draft.tree == tree else None

    def objected(self, made: MutationDone) -> Ended | SentBack:
        """The record of a child that a judge has objected to: it is not evaluated."""
        assert made.objection is not None
        if self._repair.wanted(self._state.pending[made.number], made.objection):
            return SentBack(number=made.number, evaluation=made.objection)
        return Ended(number=made.number, evaluation=made.objection)

    def evaluated(self, job: Job, outcome: Evaluated) -> Event:
        """The record of an evaluation, of whatever kind."""
        self._keep_files(job.key, outcome.files)
        evaluation, elapsed_s, place = self._state.archive.admit(outcome.evaluation), outcome.elapsed_s, outcome.place
        match job:
            case ChildJob():
                number = job.proposal.number
                if isinstance(evaluation, Rejected) and self._repair.wanted(job.proposal, evaluation):
                    return SentBack(number=number, evaluation=evaluation, elapsed_s=elapsed_s, place=place)
                return Ended(number=number, evaluation=evaluation, elapsed_s=elapsed_s, place=place)
            case RemeasureJob():
                return Remeasured(
                    index=job.index, candidate=job.candidate, evaluation=evaluation, elapsed_s=elapsed_s, place=place
                )
            case FinalJob():
                return FinalMeasured(
                    subject=job.subject, round=job.round, evaluation=evaluation, elapsed_s=elapsed_s, place=place
                )

    def recorded(self, event: Event) -> None:
        """The event is part of the state: the tree of a child that has ended is the archive's."""
        candidate = self._state.archive.candidates.get(candidate_id(event.number)) if isinstance(event, Ended) else None
        if candidate is not None:
            self._flying.pop(candidate.tree, None)

    def _unmade(self, job: ChildJob, verdict: Rejected, outcome: Mutated | Failed) -> Ended:
        """The child ends without a commit, and with its bill; or with its last one, which could not be mended."""
        number = job.proposal.number
        if attempts := self._state.attempts.get(number):
            last = attempts[-1].evaluation
            verdict = replace(last, reason=f"{last.reason} (not mended: {verdict.reason})"[:1000])
        return Ended(number=number, evaluation=verdict, elapsed_s=outcome.elapsed_s, spent=outcome.spent)

    def _keep_files(self, key: str, files: Sequence[tuple[str, str]]) -> None:
        folder = self._children / key
        try:
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
            for name, text in files:
                (folder / Path(name).name).write_bytes(text.encode())
        except OSError as error:
            raise InfrastructureError(f"cannot write {folder}: {error.strerror}; free space, then resume") from error
