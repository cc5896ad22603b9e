"""Racing stops measuring what is beaten, but never on the word of repeats that a neighbour disturbed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from evaluators.evaluator import EvaluationTask, Lease
from evaluators.launch import Launch
from evaluators.pipeline import LocalEvaluator
from evaluators.process import RunningProcess
from population.evaluation import Scored
from tests.evaluators import patience

UNBEATABLE = ((-50.0, -50.0, -50.0),)
"""Costs that no candidate reaches: whoever is raced against them is beaten after the first repeat."""
SPIN = "import os, sys\nos.nice(19)\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
"""It takes what the server leaves: noise, but no starvation."""


@contextmanager
def neighbour(cpu: int, folder: Path) -> Iterator[None]:
    """Somebody else's work on that CPU."""
    command = (sys.executable, "-c", SPIN, str(cpu))
    with RunningProcess(Launch(command=command, workspace=folder, env={}, log=folder / "neighbour.log")):
        yield


def test_a_candidate_is_never_dropped_on_disturbed_repeats(
    evaluator: LocalEvaluator, task: EvaluationTask, lease: Lease, tmp_path: Path
) -> None:
    with neighbour(lease.cpus[0], tmp_path):
        evaluation = patience.evaluate(evaluator, replace(task, judged=False, repeats=2, bar=UNBEATABLE), lease)
    assert isinstance(evaluation, Scored), evaluation
    assert "noisy" in evaluation.flags and "short" not in evaluation.flags
    assert {len(values) for values in evaluation.samples.values()} == {2}
