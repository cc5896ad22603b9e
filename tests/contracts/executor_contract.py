"""What every executor promises, whatever it runs on; a suite subclasses this and provides `make`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from population.candidate import Operator, Proposal
from population.evaluation import Rejected, Scored
from population.genome import KnobValue
from tests.vibeserve.recorded import RecordedEvaluator, toy_kit
from vibeserve.executor import ChildTask, Completion, Evaluated, Executor, Fault, Material, MeasureTask, Mutated
from vibeserve.workshop import Kit

Make = Callable[[Kit], Executor]
DEADLINE_S = 60.0


def measure(key: str, kit: Kit, **options: object) -> MeasureTask:
    return MeasureTask(key=key, trace_seed=1, content_seed=2, commit=kit.seed_commit, **options)  # type: ignore[arg-type]


def child(number: int, kit: Kit, *, recipe: str | None = None, seen: frozenset[str] = frozenset()) -> ChildTask:
    knobs: dict[str, KnobValue] = {} if recipe else {"engine.delay_ms": 1.0 + number / 8}
    operator = Operator.RECIPE if recipe else Operator.TUNE
    proposal = Proposal(number=number, operator=operator, parents=("c000000",), recipe=recipe, knobs=knobs)
    task = MeasureTask(key=proposal.id, trace_seed=1, content_seed=number, seen_trees=seen)
    return ChildTask(proposal=proposal, material=Material(bundle=b"", parents=(kit.seed_commit,)), measure=task)


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

    def test_a_child_is_mutated_and_then_evaluated(self, executor: Executor, kit: Kit) -> None:
        executor.submit(child(1, kit))
        mutated, evaluated = drain(executor, 2)
        assert (mutated.key, evaluated.key) == ("c000001", "c000001")
        assert isinstance(mutated.outcome, Mutated)
        assert isinstance(evaluated.outcome, Evaluated)
        assert isinstance(evaluated.outcome.evaluation, Scored)
        assert ("server.log", "recorded\n") in evaluated.outcome.files

    def test_per_child_the_order_holds_for_many(self, executor: Executor, kit: Kit) -> None:
        for number in range(1, 7):
            executor.submit(child(number, kit))
        done = drain(executor, 12)
        for number in range(1, 7):
            kinds = [type(c.outcome) for c in done if c.key == f"c{number:06d}"]
            assert kinds == [Mutated, Evaluated]

    def test_a_tree_that_exists_is_measured_without_mutation(self, executor: Executor, kit: Kit) -> None:
        executor.submit(measure("r000000", kit))
        (done,) = drain(executor, 1)
        assert done.key == "r000000"
        assert isinstance(done.outcome, Evaluated)

    def test_the_same_task_gives_the_same_commit(self, executor: Executor, kit: Kit) -> None:
        commits = []
        for _ in range(2):
            executor.submit(child(1, kit))
            mutated = drain(executor, 2)[0].outcome
            assert isinstance(mutated, Mutated)
            commits.append(mutated.commit)
        assert commits[0] == commits[1]

    def test_a_known_tree_is_not_evaluated(self, executor: Executor, kit: Kit) -> None:
        executor.submit(child(1, kit))
        mutated = drain(executor, 2)[0].outcome
        assert isinstance(mutated, Mutated)
        executor.submit(child(1, kit, seen=frozenset({mutated.tree})))
        executor.submit(measure("r000001", kit))
        assert [c.key for c in drain(executor, 2)] == ["c000001", "r000001"]

    def test_a_failed_mutation_ends_the_child(self, executor: Executor, kit: Kit) -> None:
        executor.submit(child(1, kit, recipe="no-such-recipe"))
        executor.submit(measure("r000001", kit))
        done = {c.key: c.outcome for c in drain(executor, 2)}
        assert isinstance(done["c000001"], Rejected)
        assert isinstance(done["r000001"], Evaluated)

    def test_a_bug_of_ours_is_a_fault_and_not_retried(self, make: Make, tmp_path: Path) -> None:
        kit = toy_kit(tmp_path, RecordedEvaluator(explode=True))
        executor = make(kit)
        try:
            executor.submit(child(1, kit, recipe="batching"))
            fault = drain(executor, 2)[1].outcome
        finally:
            executor.close()
        assert isinstance(fault, Fault)
        assert not fault.retryable
        assert "ZeroDivisionError" in fault.reason

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
