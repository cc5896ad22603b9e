"""A run without faults that is fed the same order of events: what a disturbed run must amount to.

Every decision and every measurement is made again, here and one after the other, by the policy, the mutators and the
evaluator alone: no driver, no executor, no Ray. What is taken over is which event came when, and how long it took.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from evaluators.evaluator import EvaluationTask, Lease
from population.candidate import Operator, Proposal, candidate_id
from population.evaluation import Evaluation, Rejected, Stage
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
from population.genome import Genome, parse_genome
from population.ledger import read_events
from population.replay import State
from population.repository import Commit, Conflict, Repository
from tests.chaos.world import population
from tests.vibeserve.recorded import RecordedEvaluator
from vibeserve.layers import load_run_config
from vibeserve.mutators import Mutator, RecipeMutator, TuneMutator
from vibeserve.recipes import load_recipes
from vibeserve.rules import Root, Rules


@dataclass
class Reference:
    """One run, made again in an empty folder. Use once."""

    run_dir: Path
    scratch: Path

    def population(self) -> list[str]:
        """What the run amounts to if nothing fails."""
        self.scratch.mkdir()
        state = State()
        for event in read_events(self.run_dir / "ledger"):
            again = self._again(state, event)
            if again is not None:
                state.apply(again)
        return population(state)

    @cached_property
    def _repository(self) -> Repository:
        repository = Repository.create(self.scratch / "hub.git")
        repository.commit_tree(self.run_dir / "target" / "seed", parents=(), message="seed", number=0)
        return repository

    @cached_property
    def _rules(self) -> Rules:
        config = load_run_config(self.run_dir)
        assert config.seed is not None
        nothing = Root(commit="", tree="", genome=parse_genome({}))
        return Rules(seed=config.seed, secret=(self.run_dir / "secret").read_bytes(), root=nothing)

    @cached_property
    def _recipes(self) -> RecipeMutator:
        return RecipeMutator(load_recipes(self.run_dir / "skills"))

    def _again(self, state: State, event: Event) -> Event | None:
        match event:
            case Faulted() | Stopped():
                return None
            case Proposed() if event.proposal.number:
                return replace(event, proposal=self._proposal(state, event.proposal.number))
            case MutationDone() if event.number:
                made = self._mutated(state, state.pending[event.number])
                assert not isinstance(made, Rejected), made
                return replace(event, commit=made[0].sha, tree=made[0].tree, genome=made[1])
            case Ended():
                return replace(event, evaluation=self._ended(state, event.number))
            case RemeasureStarted():
                return replace(event, candidate=self._remeasured(state, event.index))
            case Remeasured():
                commit = state.archive.candidates[event.candidate].commit
                return replace(event, evaluation=self._evaluated(state, f"r{event.index:06d}", commit))
            case FinalMeasured() if event.subject in state.archive.candidates:
                commit = state.archive.candidates[event.subject].commit
                key = f"f-{event.subject}-{event.round}"
                return replace(event, evaluation=self._evaluated(state, key, commit))
        return event

    def _proposal(self, state: State, number: int) -> Proposal:
        policy = load_run_config(self.run_dir).search.build(load_recipes(self.run_dir / "skills"))
        rng = np.random.default_rng([self._rules.seed, number])
        pending = [state.pending[n] for n in sorted(state.pending)]
        proposal = policy.propose(state.archive, pending, number, rng)
        assert proposal is not None
        return proposal

    def _remeasured(self, state: State, index: int) -> str:
        policy = load_run_config(self.run_dir).search.build(load_recipes(self.run_dir / "skills"))
        rng = np.random.default_rng([self._rules.seed, 1, index])
        candidate = policy.remeasure(state.archive, tuple(state.remeasuring.values()), rng)
        assert candidate is not None
        return candidate

    def _mutated(self, state: State, proposal: Proposal) -> tuple[Commit, Genome] | Rejected:
        parents = [state.archive.candidates[parent].commit for parent in proposal.parents]
        merge = proposal.operator is Operator.MERGE
        made = self._merged(proposal, parents) if merge else self._changed(proposal, parents)
        if isinstance(made, Rejected):
            return made
        return made, parse_genome(self._repository.read_files(made.sha, "*.toml"))

    def _merged(self, proposal: Proposal, parents: Sequence[str]) -> Commit | Rejected:
        summary = f"merge {proposal.parents[0]} and {proposal.parents[1]}"
        merged = self._repository.merge(*parents[:2], message=summary, number=proposal.number)
        if isinstance(merged, Conflict):
            return Rejected(stage=Stage.MUTATE, reason=f"{summary}: conflict in {', '.join(merged.paths)}")
        return merged

    def _changed(self, proposal: Proposal, parents: Sequence[str]) -> Commit | Rejected:
        mutators: dict[Operator, Mutator] = {Operator.RECIPE: self._recipes, Operator.TUNE: TuneMutator()}
        with self._exported(parents[0]) as tree:
            mutation = mutators[proposal.operator].mutate(tree, proposal, proposal.goal or "")
            if isinstance(mutation, Rejected):
                return mutation
            return self._repository.commit_tree(
                tree, parents=parents[:1], message=mutation.summary, number=proposal.number
            )

    def _ended(self, state: State, number: int) -> Evaluation:
        if number in state.mutated:
            return self._evaluated(state, candidate_id(number), state.mutated[number].commit)
        made = self._mutated(state, state.pending[number])
        if isinstance(made, Rejected):
            return made
        twin = state.twin_of(made[0].tree, number)
        assert twin is not None, "a child ended without a commit although its mutation works and its tree is new"
        return Rejected(stage=Stage.DEDUPE, reason=f"the same tree as {twin}")

    def _evaluated(self, state: State, key: str, commit: str) -> Evaluation:
        output = self.scratch / "output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        with self._exported(commit) as tree:
            task = EvaluationTask(
                candidate=key,
                workspace=tree,
                target=self.run_dir / "target",
                trace_seed=0,
                content_seed=self._rules.content_seed(key),
                output=output,
            )
            lease = Lease(cpus=(0,), scratch=output)
            return state.archive.admit(RecordedEvaluator().evaluate(task, lease, lambda stage: None))

    @contextmanager
    def _exported(self, commit: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            self._repository.export(commit, Path(folder))
            yield Path(folder)
