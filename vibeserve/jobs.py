"""Decides what is sent to the machines for a child, a re-measurement or a final measurement.

A job is made from the run's state alone, so the same state gives the same job, also after a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from population.candidate import Proposal, candidate_id
from population.replay import State
from population.repository import Repository
from search import racing
from vibeserve.executor import ChildTask, Material, MeasureTask
from vibeserve.rules import Root, Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildJob:
    """A child of the search; key `c000012`."""

    proposal: Proposal
    task: ChildTask

    @property
    def key(self) -> str:
        return self.proposal.id


@dataclass(frozen=True, slots=True, kw_only=True)
class RemeasureJob:
    """One more measurement of a candidate, while slots are idle; key `r000003`."""

    index: int
    candidate: str
    task: MeasureTask

    @property
    def key(self) -> str:
        return f"r{self.index:06d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalJob:
    """A measurement on the held-out trace; key `f-c000012-0`, `f-sequential-kv-1`."""

    subject: str
    """Candidate id, or a baseline's name."""
    round: int
    task: MeasureTask

    @property
    def key(self) -> str:
        return f"f-{self.subject}-{self.round}"


Job = ChildJob | RemeasureJob | FinalJob


class JobMaker:
    """Makes jobs from the state of one run."""

    def __init__(self, rules: Rules, state: State, repository: Repository) -> None:
        self._rules, self._state, self._repository = rules, state, repository

    def child(self, proposal: Proposal) -> ChildJob:
        """From the parents; or from the child's own commit, if its mutation is on record already."""
        done = self._state.mutated.get(proposal.number)
        archive = self._state.archive
        measure = MeasureTask(
            key=proposal.id,
            trace_seed=self._rules.trace_seed("search"),
            content_seed=self._rules.content_seed(proposal.id),
            bar=self._bar() if proposal.number else (),
            repeats=self._rules.repeats,
            profile=self._rules.profile,
            bundle=self._bundle((done.commit,)) if done else None,
            commit=done.commit if done else None,
            seen_trees=frozenset(archive.trees),
        )
        material = None
        if done is None:
            parents = tuple(archive.candidates[p].commit for p in proposal.parents)
            material = Material(bundle=self._bundle(parents), parents=parents, brief=proposal.goal or "")
        return ChildJob(proposal=proposal, task=ChildTask(proposal=proposal, material=material, measure=measure))

    def remeasure(self, index: int, candidate: str) -> RemeasureJob:
        """On the search's trace with fresh contents; the tree has been judged before, the audit still runs."""
        commit = self._state.archive.candidates[candidate].commit
        return RemeasureJob(index=index, candidate=candidate, task=self._measure(f"r{index:06d}", "search", commit))

    def finals(self) -> list[FinalJob]:
        """What is still to be measured on the held-out trace: seed, baselines and front, in turn and back (ABBA)."""
        seed = candidate_id(0)
        subjects: dict[str, Root | str] = {seed: self._rules.root, **self._rules.baselines}
        subjects |= {i: self._state.archive.candidates[i].commit for i in self._state.archive.front if i != seed}
        jobs = []
        for round_ in range(self._rules.final_repeats):
            for subject in sorted(subjects, reverse=bool(round_ % 2)):
                if (subject, round_) not in self._state.finals:
                    root = subjects[subject]
                    commit = root if isinstance(root, str) else root.commit
                    task = self._measure(f"f-{subject}-{round_}", "held-out", commit)
                    jobs.append(FinalJob(subject=subject, round=round_, task=task))
        return jobs

    def _measure(self, key: str, trace: str, commit: str) -> MeasureTask:
        return MeasureTask(
            key=key,
            trace_seed=self._rules.trace_seed(trace),
            content_seed=self._rules.content_seed(key),
            repeats=self._rules.repeats,
            judged=False,
            bundle=self._bundle((commit,)),
            commit=commit,
        )

    def _bar(self) -> tuple[tuple[float, ...], ...]:
        return racing.bar(self._state.archive) if self._rules.racing else ()

    def _bundle(self, commits: Sequence[str]) -> bytes:
        """Commits on top of the seed, which every worker has; nothing for the seed itself."""
        seed = self._rules.root.commit
        wanted = [commit for commit in commits if commit != seed]
        return self._repository.bundle(*wanted, have=[seed]) if wanted else b""
