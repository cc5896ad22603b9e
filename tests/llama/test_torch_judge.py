"""The target's own server, in small and without a GPU, through everything that judges and measures a candidate."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import tomli_w
from llama import BENCHMARKS

from evaluators.evaluator import EvaluationTask, Lease
from evaluators.pipeline import LocalEvaluator
from population.evaluation import Scored

LOADS = ("64x128r128", "1024x128r32", "max")
"""Each kind once; all ten take a minute."""


def read(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text(encoding="utf-8"))


def test_the_seed_is_accurate_and_measured(tmp_path: Path) -> None:
    folder, scratch = tmp_path / "target", tmp_path / "scratch"
    subprocess.run([sys.executable, BENCHMARKS / "tiny_target.py", folder], check=True, timeout=60)
    settings, objectives = (read(folder / name) for name in ("target.toml", "objectives.toml"))
    settings["load"] = [load for load in settings["load"] if load["name"] in LOADS]
    for objective in objectives["objective"]:
        objective["loads"] = [name for name in objective["loads"] if name in LOADS]
    for name, tables in (("target.toml", settings), ("objectives.toml", objectives)):
        (folder / name).write_text(tomli_w.dumps(tables), encoding="utf-8")
    scratch.mkdir()
    task = EvaluationTask(
        candidate="c000000", workspace=folder / "seed", target=folder, trace_seed=1, content_seed=2, repeats=1,
        first_party=True, output=tmp_path / "output",
    )  # fmt: skip
    evaluator = LocalEvaluator(cache=tmp_path / "cache", noise_retries=0)
    lease = Lease(cpus=tuple(sorted(os.sched_getaffinity(0)))[:2], scratch=scratch)
    evaluation = evaluator.evaluate(task, lease, lambda _: None)
    assert isinstance(evaluation, Scored), evaluation
    assert evaluation.audit["tokens"] > 100
    assert evaluation.audit["flip_rate"] < 0.01, "float32 throughout: rounding decides next to nothing"
    assert all(evaluation.samples[f"output_throughput@{load['name']}"][0] > 0 for load in settings["load"])
