"""Decides how a child's commit is made: by whom, from which tree, and who reads it before it may be run."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from population.candidate import Operator
from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage
from population.repository import Commit, Conflict, Repository, TreeRefused
from population.spending import Spending
from vibeserve.executor import Draft, MutateTask
from vibeserve.mutators import Advice, Advisor, Change, Mutation, Mutator, Repairing, Reviewer, Unmade
from vibeserve.prompts.rendering import rendered

_MARKER = re.compile(rb"^(?:<{7}|>{7}|\|{7}) ", re.MULTILINE)
"""What git writes around a conflict. Not `=======`: that line is Markdown, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Makers:
    """Who makes children on this machine."""

    mutators: Mapping[Operator, Mutator]
    judge: Reviewer | None = None
    """Reads what a model has written."""
    advisor: Advisor | None = None
    """Reads the profile of a parent that a model will change."""
    merges: bool = False
    """Whether who makes the children of `agent` resolves merges that conflict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A child's commit, and what it took."""

    commit: Commit
    mutation: Mutation
    advice: Advice
    told: str
    """What its maker was told; empty where nobody reads."""
    objection: Rejected | None = None
    unread: InfrastructureError | None = None
    """Why the judge could not read it, with what it has spent; None: it could, or there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoWork:
    """No commit, and what that took."""

    unmade: Unmade
    advice: Advice
    told: str


_NO_ADVICE = Advice(text="")


class Maker:
    """Makes one child after the other; the commits go into the machine's cache."""

    def __init__(self, makers: Makers, repository: Repository) -> None:
        self._makers, self._repository = makers, repository

    def make(self, task: MutateTask) -> Work | NoWork | Rejected:
        """The task's commits are here already.

        Raises:
            ProviderError: of a model that makes it, with all that was spent on the child until then.
        """
        folder = Path(tempfile.mkdtemp(prefix="vibeserve-tree-"))
        try:
            if task.draft is not None:
                return self._read(task, folder, task.draft)
            if task.proposal.operator is Operator.MERGE:
                return self._merged(task, folder)
            return self._changed(task, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # --- by a mutator ---------------------------------------------------------------------------------------------

    def _changed(self, task: MutateTask, folder: Path) -> Work | NoWork | Rejected:
        self._repository.export(task.returned.commit if task.returned else task.parents[0], folder)
        advice = self._advice(task, folder)
        text = advice.text or task.advice
        if text:
            words = rendered("advice", candidate=task.proposal.parents[0], advice=text)
            task = replace(task, brief=f"{task.brief}\n\n{words}")
        with _billed(advice.spent):
            return self._made(task, folder, advice)

    def _made(
        self, task: MutateTask, folder: Path, advice: Advice, by: Operator | None = None
    ) -> Work | NoWork | Rejected:
        """Change the tree in the folder and commit it; `by`: whose mutator does it, None: the proposal's."""
        mutator = self._makers.mutators[by or task.proposal.operator]
        if task.returned is not None:
            assert isinstance(mutator, Repairing), "the driver sends nothing back to who cannot mend it"
            mutation = mutator.repair(folder, task.proposal, task.brief, task.returned)
        else:
            mutation = mutator.mutate(folder, task.proposal, task.brief)
        if isinstance(mutation, Rejected):
            mutation = Unmade(rejected=mutation)
        if isinstance(mutation, Unmade):
            return NoWork(unmade=mutation, advice=advice, told=_told(task))
        return self._committed(task, folder, mutation, advice)

    def _advice(self, task: MutateTask, folder: Path) -> Advice:
        advisor = self._makers.advisor
        return advisor.advise(folder, task.proposal, task.profile) if advisor and task.profile else _NO_ADVICE

    # --- by git ---------------------------------------------------------------------------------------------------

    def _merged(self, task: MutateTask, folder: Path) -> Work | NoWork | Rejected:
        """Git's work; a model's where git finds a conflict, if there is one for it."""
        proposal, parents = task.proposal, task.parents[:2]
        summary = f"merge {proposal.parents[0]} and {proposal.parents[1]}"
        merged = self._repository.merge(*parents, message=summary, number=proposal.number)
        if isinstance(merged, Commit):
            mutation = Mutation(summary=summary, changed=(), trace=summary)
            return Work(commit=merged, mutation=mutation, advice=_NO_ADVICE, told="")
        if not self._makers.merges:
            return Rejected(stage=Stage.MUTATE, reason=f"{summary}: conflict in {', '.join(merged.paths)}")
        return self._resolved(task, folder, merged)

    def _resolved(self, task: MutateTask, folder: Path, conflict: Conflict) -> Work | NoWork | Rejected:
        ours, theirs = task.proposal.parents[:2]
        words = rendered("conflicts", ours=ours, theirs=theirs, paths=conflict.paths)
        task = replace(task, brief=f"{task.brief}\n\n{words}")
        try:
            self._repository.export(task.returned.commit if task.returned else conflict.tree, folder)
        except TreeRefused as refusal:
            return Rejected(stage=Stage.MUTATE, reason=f"merge {ours} and {theirs}: {refusal}")
        return self._made(task, folder, _NO_ADVICE, Operator.AGENT)

    # --- what was made --------------------------------------------------------------------------------------------

    def _read(self, task: MutateTask, folder: Path, draft: Draft) -> Work:
        self._repository.export(draft.commit, folder)
        commit = Commit(sha=draft.commit, tree=self._repository.tree_of(draft.commit))
        mutation = Mutation(summary=draft.summary, changed=draft.changed, trace="")
        work = Work(commit=commit, mutation=mutation, advice=_NO_ADVICE, told="")
        return self._reviewed(task, folder, work, draft.attempt)

    def _committed(self, task: MutateTask, folder: Path, mutation: Mutation, advice: Advice) -> Work | NoWork:
        merging = task.proposal.operator is Operator.MERGE
        problem = marked(folder) if merging else None
        try:
            if problem is None:
                commit = self._repository.commit_tree(
                    folder,
                    parents=task.parents[: 2 if merging else 1],
                    message=mutation.summary,
                    number=task.proposal.number,
                )
                work = Work(commit=commit, mutation=mutation, advice=advice, told=_told(task))
                return self._reviewed(task, folder, work, task.returned.attempt if task.returned else 0)
        except TreeRefused as refusal:
            problem = str(refusal)
        rejected = Rejected(stage=Stage.MUTATE, reason=problem)
        unmade = Unmade(rejected=rejected, spent=mutation.spent, files=mutation.files)
        return NoWork(unmade=unmade, advice=advice, told=_told(task))

    def _reviewed(self, task: MutateTask, folder: Path, work: Work, attempt: int) -> Work:
        """Read by a judge, where a model has written it; recipes and knobs are ours."""
        judge, operator, mutation = self._makers.judge, task.proposal.operator, work.mutation
        if judge is None or operator not in (Operator.AGENT, Operator.MERGE):
            return work
        change = Change(
            tree=folder,
            proposal=task.proposal,
            summary=mutation.summary,
            diff=self._repository.diff(task.parents[0], work.commit.sha),
            changed=mutation.changed,
            attempt=attempt,
        )
        try:
            review = judge.review(change)
        except InfrastructureError as error:
            return replace(work, unread=error)
        spent, files = (*mutation.spent, *review.spent), (*mutation.files, *review.files)
        return replace(work, mutation=replace(mutation, spent=spent, files=files), objection=review.objection)


def _told(task: MutateTask) -> str:
    return task.returned.words if task.returned else task.brief


@contextmanager
def _billed(spent: Sequence[Spending]) -> Iterator[None]:
    """If a provider or the machine fails in the block, what was spent before is on the bill, too."""
    try:
        yield
    except InfrastructureError as error:
        error.spent = (*spent, *error.spent)
        raise


def marked(tree: Path) -> str | None:
    """What is wrong with a tree in which git has left conflict markers; None: none are left."""
    found = sorted(
        str(path.relative_to(tree))
        for path in tree.rglob("*")
        if path.is_file() and not path.is_symlink() and _MARKER.search(path.read_bytes())
    )
    return f"expected no conflict markers, found some in {', '.join(found)}" if found else None
