"""Decides what a completion amounts to: the commit that is kept, the files beside it, and the record.

A child's commit is stored before its record is written. A tree that exists already, ended or in flight, ends the child:
no tree is evaluated twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from population.candidate import candidate_id
from population.errors import ConfigError, InfrastructureError
from population.evaluation import Rejected, Stage
from population.events import Ended, Event, FinalMeasured, MutationDone, Remeasured
from population.genome import parse_genome
from population.replay import State
from population.repository import Repository
from vibeserve.chains import Chains
from vibeserve.executor import Delta, Evaluated, Failed, Made, Mutated
from vibeserve.jobs import ChildJob, FinalJob, Job, RemeasureJob


class Intake:
    """Makes records of what the machines have sent. It writes none: the driver does."""

    def __init__(self, state: State, repository: Repository, children: Path, chains: Chains) -> None:
        self._state, self._repository, self._children, self._chains = state, repository, children, chains
        self._flying = {made.tree: candidate_id(number) for number, made in state.mutated.items()}
        """Trees of children that have not ended, those of this moment's records among them."""

    def mutated(self, job: ChildJob, outcome: Made) -> MutationDone | Ended:
        """To be called inside the repository's batch: the record may be written once that is stored."""
        number = job.proposal.number
        if isinstance(outcome, Rejected):
            return Ended(number=number, evaluation=outcome, elapsed_s=0.0)
        self._keep_files(job.key, outcome.files)
        if isinstance(outcome, Failed):
            return _unmade(job, outcome.rejected, outcome)
        twin = self._state.archive.trees.get(outcome.tree) or self._flying.get(outcome.tree)
        if twin is not None:
            return _unmade(job, Rejected(stage=Stage.DEDUPE, reason=f"the same tree as {twin}"), outcome)
        return self._stored(job, outcome)

    def _stored(self, job: ChildJob, outcome: Mutated) -> MutationDone | Ended:
        number = job.proposal.number
        self._repository.absorb(outcome.delta)
        try:
            genome = parse_genome(self._repository.read_files(outcome.commit, "*.toml"))
        except ConfigError as error:
            verdict = Rejected(
                stage=Stage.MUTATE, reason="its component files are malformed", evidence=str(error)[:4000]
            )
            return _unmade(job, verdict, outcome)
        self._repository.set_ref(job.key, outcome.commit)
        self._chains.keep(Delta(commit=outcome.commit, data=outcome.delta))
        self._flying[outcome.tree] = job.key
        return MutationDone(
            number=number,
            commit=outcome.commit,
            tree=outcome.tree,
            genome=genome,
            summary=outcome.summary,
            elapsed_s=outcome.elapsed_s,
            spent=outcome.spent,
        )

    def evaluated(self, job: Job, outcome: Evaluated) -> Event:
        """The record of an evaluation, of whatever kind."""
        self._keep_files(job.key, outcome.files)
        evaluation, elapsed_s, place = self._state.archive.admit(outcome.evaluation), outcome.elapsed_s, outcome.place
        match job:
            case ChildJob():
                number = job.proposal.number
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

    def _keep_files(self, key: str, files: Sequence[tuple[str, str]]) -> None:
        folder = self._children / key
        try:
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
            for name, text in files:
                (folder / Path(name).name).write_bytes(text.encode())
        except OSError as error:
            raise InfrastructureError(f"cannot write {folder}: {error.strerror}; free space, then resume") from error


def _unmade(job: ChildJob, verdict: Rejected, outcome: Mutated | Failed) -> Ended:
    """The child ends without a commit of its own, and with its bill."""
    return Ended(number=job.proposal.number, evaluation=verdict, elapsed_s=outcome.elapsed_s, spent=outcome.spent)
