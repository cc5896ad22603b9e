"""A server that imports PyTorch, profiled by PyTorch without its help: in a second start, never in the measured one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evaluators.evaluator import EvaluationTask, Lease
from evaluators.pipeline import LocalEvaluator
from population.evaluation import Scored, Stage

IMPORTS = "import os\n\nimport torch\n\nprint('path', os.environ.get('PYTHONPATH'), flush=True)\n"
COMPUTES = "        torch.ones(16, 16, device='{0}') @ torch.ones(16, 16, device='{0}')\n"


def computing_on(toy: Path, device: str) -> Path:
    """The toy target, whose model multiplies matrices for every token."""
    model = toy / "seed" / "model.py"
    head = "        state = f"
    text = model.read_text()
    assert text.count(head) == 1
    model.write_text(
        text.replace("import json\n", f"import json\n{IMPORTS}", 1).replace(head, COMPUTES.format(device) + head)
    )
    target = toy / "target.toml"
    target.write_text(target.read_text().replace("ready_timeout_s = 10", "ready_timeout_s = 60"))
    return toy


@pytest.fixture
def computing(toy: Path) -> Path:
    return computing_on(toy, "cpu")


def test_operators_of_all_threads_are_counted(
    evaluator: LocalEvaluator, task: EvaluationTask, lease: Lease, computing: Path, tmp_path: Path
) -> None:
    stages: list[Stage] = []
    evaluation = evaluator.evaluate(replace(task, profile=True, judged=False), lease, stages.append)
    assert isinstance(evaluation, Scored), evaluation
    rows = [row for row in evaluation.profile if row.source == "torch"]
    assert rows, evaluation.hints
    product = next(row for row in rows if row.name == "aten::mm")
    assert product.of == "CPU time in operators" and 0 < product.share <= 1
    assert product.calls is not None and product.calls > 1
    assert product.us_per_call is not None and product.us_per_call > 0
    assert "PyTorch" in str(evaluation.hints["torch"])
    assert len(set(stages)) == len(stages)
    # The log is that of the server that was measured: there was nothing of a profiler in it.
    assert "path None" in (tmp_path / "output" / "server.log").read_text()
    hooked = list(lease.scratch.glob("torch.log"))
    assert len(hooked) == 1 and str(lease.scratch / "profiling") in hooked[0].read_text()


def test_a_server_that_will_not_start_under_a_profiler_is_scored_all_the_same(
    evaluator: LocalEvaluator, task: EvaluationTask, lease: Lease, computing: Path
) -> None:
    model = computing / "seed" / "model.py"
    model.write_text(model.read_text() + "\nassert 'PYTHONPATH' not in os.environ\n")
    evaluation = evaluator.evaluate(replace(task, profile=True, judged=False), lease, lambda _: None)
    assert isinstance(evaluation, Scored), evaluation
    assert "does not start" in str(evaluation.hints["torch"])
    assert not [row for row in evaluation.profile if row.source == "torch"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernels_are_counted_apart_from_operators(
    evaluator: LocalEvaluator, task: EvaluationTask, lease: Lease, toy: Path
) -> None:
    computing_on(toy, "cuda")
    evaluation = evaluator.evaluate(
        replace(task, profile=True, judged=False), replace(lease, gpus=("0",)), lambda _: None
    )
    assert isinstance(evaluation, Scored), evaluation
    kernels = [row for row in evaluation.profile if row.of == "GPU time in kernels" and row.source == "torch"]
    assert kernels and all(row.calls for row in kernels), evaluation.hints
    assert "kernels fill" in str(evaluation.hints["torch"])
