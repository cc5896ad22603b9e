"""What every executor promises, whatever it runs on; a suite subclasses this and provides `make`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from population.candidate import Operator, Proposal
from population.evaluation import Scored, Stage
from population.genome import KnobValue
from tests.vibeserve.recorded import RecordedEvaluator, toy_kit
from vibeserve.executor import Completion, Delta, Evaluated, Executor, Failed, Fault, MeasureTask, Mutated, MutateTask
from vibeserve.workshop import Kit

Make = Callable[[Kit], Executor]
DEADLINE_S = 60.0


def measure(key: str, kit: Kit, commit: str | None = None, chain: tuple[Delta, ...] = ()) -> MeasureTask:
    """Of the seed, unless another commit is named."""
    return MeasureTask(key=key, trace_seed=1, content_seed=2, commit=commit or kit.seed_commit, chain=chain)


def child(number: int, kit: Kit, *, recipe: str | None = None) -> MutateTask:
    knobs: dict[str, KnobValue] = {} if recipe else {"engine.delay_ms": 1.0 + number / 8}
    operator = Operator.RECIPE if recipe else Operator.TUNE
    proposal = Proposal(number=number, operator=operator, parents=("c000000",), recipe=recipe, knobs=knobs)
    return MutateTask(proposal=proposal, parents=(kit.seed_commit,))


def mutated(executor: Executor, task: MutateTask) -> Mutated:
    """What a mutation comes to, with nothing else in flight."""
    executor.submit(task)
    (done,) = drain(executor, 1)
    assert isinstance(done.outcome, Mutated), done
    return done.outcome


def delta_of(outcome: Mutated) -> Delta:
    return Delta(commit=outcome.commit, data=outcome.delta)


def drain(executor: Executor, count: int) -> list[Completion]:
    """The next `count` completions."""
    done: list[Completion] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(done) < count:
        assert time.monotonic() < deadline, f"got {done} within {DEADLINE_S} s"
        done += executor.wait(0.5)
    return done


class ExecutorContract:
    """Subclass and provide the fixture `make`."""

    @pytest.fixture
    def kit(self, tmp_path: Path) -> Kit:
        return toy_kit(tmp_path, RecordedEvaluator())

    @pytest.fixture
    def executor(self, make: Make, kit: Kit) -> Iterator[Executor]:
        executor = make(kit)
        yield executor
        executor.close()

    def test_a_child_is_mutated_and_then_evaluated_from_its_delta(self, executor: Executor, kit: Kit) -> None:
        task = child(1, kit)
        made = mutated(executor, task)
        executor.submit(measure("c000001", kit, commit=made.commit, chain=(delta_of(made),)))
        (evaluated,) = drain(executor, 1)
        assert (task.key, evaluated.key) == ("c000001", "c000001")
        assert isinstance(evaluated.outcome, Evaluated)
        assert isinstance(evaluated.outcome.evaluation, Scored)
        assert ("server.log", "recorded\n") in evaluated.outcome.files

    def test_a_chain_leads_from_the_seed_to_any_descendant(self, executor: Executor, kit: Kit) -> None:
        """Each commit travels as what its parents lack, and arrives whole."""
        chain: tuple[Delta, ...] = ()
        parent = kit.seed_commit
        for number in range(1, 4):
            made = mutated(executor, replace(child(number, kit), parents=(parent,), chain=chain))
            chain, parent = (*chain, delta_of(made)), made.commit
        executor.submit(measure("c000003", kit, commit=parent, chain=chain))
        (done,) = drain(executor, 1)
        assert isinstance(done.outcome, Evaluated), done
        assert isinstance(done.outcome.evaluation, Scored)
        assert len(chain[-1].data) < 4000, "a delta holds one change, not the tree"

    def test_every_task_completes_exactly_once(self, executor: Executor, kit: Kit) -> None:
        for number in range(1, 5):
            executor.submit(child(number, kit))
            executor.submit(measure(f"r{number:06d}", kit))
        done = {completion.key: completion.outcome for completion in drain(executor, 8)}
        assert sorted(done) == [f"{kind}{n:06d}" for kind in "cr" for n in range(1, 5)]
        assert all(isinstance(outcome, Mutated if key[0] == "c" else Evaluated) for key, outcome in done.items())
        assert not executor.wait(0.0)

    def test_more_measurements_than_slots_wait_for_one(self, executor: Executor, kit: Kit) -> None:
        count = 2 * executor.evaluate_slots + 3
        for number in range(count):
            executor.submit(measure(f"r{number:06d}", kit))
        keys = [completion.key for completion in drain(executor, count)]
        assert sorted(keys) == [f"r{number:06d}" for number in range(count)]
        assert executor.overlaps or keys == sorted(keys), "one at a time, they end in order"

    def test_the_same_task_gives_the_same_commit(self, executor: Executor, kit: Kit) -> None:
        assert mutated(executor, child(1, kit)).commit == mutated(executor, child(1, kit)).commit

    def test_a_failed_mutation_is_a_verdict(self, executor: Executor, kit: Kit) -> None:
        executor.submit(child(1, kit, recipe="no-such-recipe"))
        executor.submit(measure("r000001", kit))
        done = {c.key: c.outcome for c in drain(executor, 2)}
        unmade = done["c000001"]
        assert isinstance(unmade, Failed)
        assert unmade.rejected.stage is Stage.MUTATE
        assert isinstance(done["r000001"], Evaluated)

    def test_a_bug_of_ours_is_a_fault_and_not_retried(self, make: Make, tmp_path: Path) -> None:
        kit = toy_kit(tmp_path, RecordedEvaluator(explode=True))
        executor = make(kit)
        try:
            made = mutated(executor, child(1, kit, recipe="batching"))
            executor.submit(measure("c000001", kit, commit=made.commit, chain=(delta_of(made),)))
            fault = drain(executor, 1)[0].outcome
        finally:
            executor.close()
        assert isinstance(fault, Fault)
        assert not fault.retryable
        assert "ZeroDivisionError" in fault.reason

    def test_its_clock_never_goes_back(self, executor: Executor, kit: Kit) -> None:
        before = executor.clock_s
        mutated(executor, child(1, kit))
        assert executor.clock_s >= before

    def test_a_cancelled_task_completes_nothing(self, executor: Executor, kit: Kit) -> None:
        executor.submit(measure("r000001", kit))
        executor.cancel("r000001")
        executor.cancel("unknown")
        executor.submit(measure("r000002", kit))
        assert [c.key for c in drain(executor, 1)] == ["r000002"]
        assert executor.wait(0.0) == () or list(executor.wait(0.0)) == []

    def test_there_is_a_slot_and_close_is_idempotent(self, executor: Executor) -> None:
        assert executor.evaluate_slots >= 1
        assert executor.stages() == {}
        executor.close()
        executor.close()
