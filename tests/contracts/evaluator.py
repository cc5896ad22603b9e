"""What every `Evaluator` promises; subclass `EvaluatorContract` in a test module and provide the fixtures it names.

class TestLocal(EvaluatorContract):
    @pytest.fixture
    def subject(self): return LocalEvaluator(...)     # the implementation
    # `task` (a good tree of a target with client-measured loads) and `lease` come from the caller's conftest
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.evaluator import EvaluationTask, Evaluator, Lease
from population.evaluation import Rejected, Scored, Stage

ORDER = tuple(Stage)


class EvaluatorContract:
    """Order, values instead of exceptions, and cleanliness."""

    @pytest.fixture
    def subject(self) -> Evaluator:
        raise NotImplementedError("provide the evaluator under test")

    def test_a_good_tree_is_scored(self, subject: Evaluator, task: EvaluationTask, lease: Lease) -> None:
        stages: list[Stage] = []
        evaluation = subject.evaluate(task, lease, stages.append)
        assert isinstance(evaluation, Scored), evaluation
        assert stages[0] is Stage.STATIC
        assert Stage.BENCHMARK in stages
        assert len(set(stages)) == len(stages)
        assert set(evaluation.stage_s) == {stage.value for stage in stages}
        assert all(seconds >= 0 for seconds in evaluation.stage_s.values())
        assert evaluation.samples
        assert all(v >= 0 for values in evaluation.samples.values() for v in values)
        assert {len(values) for values in evaluation.samples.values()} == {task.repeats}
        assert pickle.loads(pickle.dumps(evaluation)) == evaluation

    def test_a_broken_tree_is_a_value(
        self, subject: Evaluator, task: EvaluationTask, lease: Lease, tmp_path: Path
    ) -> None:
        tree = tmp_path / "broken"
        tree.mkdir()
        (tree / "server.py").write_text("def broken(:\n")
        evaluation = subject.evaluate(replace(task, workspace=tree), lease, lambda _: None)
        assert isinstance(evaluation, Rejected)
        assert evaluation.stage is Stage.STATIC
        assert "server.py" in evaluation.reason
        assert "stage_s" not in evaluation.reason

    def test_a_server_that_exits_is_a_value(
        self, subject: Evaluator, task: EvaluationTask, lease: Lease, tmp_path: Path
    ) -> None:
        tree = tmp_path / "exits"
        tree.mkdir()
        (tree / "server.py").write_text("raise SystemExit('no weights')\n")
        evaluation = subject.evaluate(replace(task, workspace=tree), lease, lambda _: None)
        assert isinstance(evaluation, Rejected)
        assert evaluation.stage is Stage.BOOT
        assert "no weights" in evaluation.evidence
        assert len(evaluation.evidence) <= 4000
        assert evaluation.stage_s[Stage.BOOT.value] >= 0

    def test_unjudged_measurement_skips_the_checker(
        self, subject: Evaluator, task: EvaluationTask, lease: Lease
    ) -> None:
        stages: list[Stage] = []
        evaluation = subject.evaluate(replace(task, judged=False), lease, stages.append)
        assert isinstance(evaluation, Scored), evaluation
        assert Stage.CHECKER not in stages
        assert {Stage.BOOT, Stage.BENCHMARK} <= set(stages)

    def test_racing_stops_a_hopeless_tree(self, subject: Evaluator, task: EvaluationTask, lease: Lease) -> None:
        """Unless a neighbour disturbed the repeat: then it proves nothing."""
        unreachable = ((-30.0,) * 3,)
        evaluation = subject.evaluate(replace(task, bar=unreachable, repeats=2), lease, lambda _: None)
        assert isinstance(evaluation, Scored), evaluation
        quiet = "noisy" not in evaluation.flags
        assert ("short" in evaluation.flags) == quiet
        assert {len(values) for values in evaluation.samples.values()} == {1 if quiet else 2}

    def test_the_tree_is_left_as_it_was(self, subject: Evaluator, task: EvaluationTask, lease: Lease) -> None:
        before = {path: path.read_bytes() for path in task.workspace.rglob("*") if path.is_file()}
        subject.evaluate(task, lease, lambda _: None)
        assert {path: path.read_bytes() for path in task.workspace.rglob("*") if path.is_file()} == before
