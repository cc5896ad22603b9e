"""Decides how one folder is judged outside a run."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluators.evaluator import EvaluationTask
from evaluators.pipeline import LocalEvaluator
from evaluators.target import Target
from population.archive import noise_factor
from population.errors import InfrastructureError
from population.evaluation import Evaluation, Rejected, Stage
from population.objectives import objective_samples
from population.statistics import estimate
from population.trees import SKIPPED
from vibeserve.lease import lease, visible_gpus
from vibeserve.tiers import is_own_seed


def judge_folder(
    target: Target,
    folder: Path,
    repeats: int | None,
    trace_seed: int,
    progress: Callable[[Stage], None],
    allow_reduced: bool = False,
) -> Evaluation:
    """Evaluate a copy of `folder` on this machine, with fresh prompts. Only a seed of the checkout is first-party.

    Raises:
        IsolationError: this machine cannot contain what is in the folder.
        InfrastructureError: the machine's fault.
    """
    with lease(target.resources.cpus, visible_gpus(target.resources.num_gpus)) as granted:
        workspace = granted.scratch / "workspace"
        try:
            shutil.copytree(folder, workspace, symlinks=True, ignore=shutil.ignore_patterns(*SKIPPED, "*.pyc"))
        except (OSError, shutil.Error) as error:
            raise InfrastructureError(f"cannot copy {folder}: {error}") from error
        task = EvaluationTask(
            candidate=folder.name,
            workspace=workspace,
            target=target.folder,
            trace_seed=trace_seed,
            content_seed=secrets.randbits(48),
            repeats=repeats,
            first_party=is_own_seed(workspace, target.folder),
            output=granted.scratch / "output",
        )
        return LocalEvaluator(allow_reduced=allow_reduced).evaluate(task, granted, progress)


def evaluation_json(evaluation: Evaluation, target: Target) -> dict[str, Any]:
    """The object of `vibeserve judge --json`."""
    common = {
        "verdict": evaluation.kind,
        "tier": evaluation.tier,
        "gaps": list(evaluation.gaps),
        "stage_s": dict(evaluation.stage_s),
    }
    if isinstance(evaluation, Rejected):
        return {
            **common,
            "stage": str(evaluation.stage),
            "reason": evaluation.reason,
            "evidence": evaluation.evidence,
            "metrics": {},
        }
    metrics = {}
    for o in target.objectives:
        e = estimate(objective_samples(o, evaluation.samples), o.relative_noise, noise_factor([evaluation]))
        metrics[o.name] = {
            "value": e.value, "low": e.low, "high": e.high, "n": e.n, "unit": o.unit, "direction": str(o.direction)
        }  # fmt: skip
    return {
        **common,
        "metrics": metrics,
        "samples": {name: list(values) for name, values in evaluation.samples.items()},
        "audit": dict(evaluation.audit),
        "flags": list(evaluation.flags),
    }
