"""Decides when a test evaluates again: when the machine was too busy for a measurement, as a driver would."""

from __future__ import annotations

from evaluators.evaluator import EvaluationTask, Lease
from evaluators.pipeline import LocalEvaluator
from population.errors import InfrastructureError
from population.evaluation import Evaluation

_ATTEMPTS = 8
_DISTURBED = "while others used"


def evaluate(evaluator: LocalEvaluator, task: EvaluationTask, lease: Lease) -> Evaluation:
    """What the evaluator says of the task, on a machine that others use, too.

    Raises:
        InfrastructureError: any other than that others used the CPUs; that one, when it was the last attempt.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return evaluator.evaluate(task, lease, lambda _: None)
        except InfrastructureError as error:
            if _DISTURBED not in str(error):
                raise
    return evaluator.evaluate(task, lease, lambda _: None)
