"""The seed and what recipes make of it, on a CPU: the reference's greedy tokens, whatever shares a step."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama import TARGET, run_script
from trees import FASTEST, FUSED, PAGED, make_tree

from population.genome import KnobValue

Jobs = list[dict[str, Any]]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def mixed_jobs(count: int, seed: int, spread: int = 12) -> Jobs:
    """Prompts around the limits of pages and query blocks, arriving over `spread` turns."""
    rng = np.random.default_rng(seed)
    lengths = (1, 2, 15, 16, 17, 40, 63, 64, 65, 130)
    return [
        {
            "prompt": rng.integers(96, 2000, int(rng.choice(lengths))).tolist(),
            "max_new": int(rng.integers(1, 12)),
            "arrives": int(rng.integers(0, spread)),
        }
        for _ in range(count)
    ]


def generate(tree: Path, artifacts: Path, jobs: Jobs) -> list[list[int]]:
    """What the engine of `tree` generates, stepped in a process of its own."""
    script = Path(__file__).with_name("engine_steps.py")
    result = subprocess.run(
        [sys.executable, "-I", script, tree, artifacts],
        input=json.dumps(jobs), capture_output=True, text=True, timeout=120, env=ENVIRONMENT,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    outputs: list[list[int]] = json.loads(result.stdout)
    return outputs


def score(artifacts: Path, jobs: Jobs, outputs: list[list[int]], folder: Path) -> dict[str, Any]:
    """The reference's verdict, by the script that the audit uses."""
    responses, verdict = folder / "responses.jsonl", folder / "verdict.json"
    lines = [
        json.dumps({"id": str(i), "load": "test", "prompt_ids": job["prompt"], "output_ids": output, "occupancy": 1})
        for i, (job, output) in enumerate(zip(jobs, outputs, strict=True))
        if output
    ]
    responses.write_text("\n".join(lines) + "\n")
    options = ("--artifacts", artifacts, "--responses", responses, "--output", verdict)
    done = run_script(TARGET / "reference" / "score.py", *options)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(verdict.read_text())
    return figures


@pytest.mark.parametrize(
    ("recipes", "knobs"),
    [
        ((), {}),
        (("gpu-static-kv",), {}),
        (("gpu-static-kv", "gpu-mixed-batching", "gpu-fused-kernels"), {"kv_cache__slots": 4}),
        (PAGED, {"scheduler__max_running": 64}),
        ((*PAGED, "gpu-cuda-graphs"), {"scheduler__step_tokens": 256}),
        (FASTEST, {}),
    ],
    ids=lambda value: ("+".join(value) or "seed") if isinstance(value, tuple) else "",
)
def test_trees_emit_the_references_tokens(
    tmp_path: Path, artifacts: Path, recipes: tuple[str, ...], knobs: dict[str, KnobValue]
) -> None:
    tree, jobs = make_tree(tmp_path / "tree", *recipes, **knobs), mixed_jobs(12 if recipes else 5, seed=len(recipes))
    outputs = generate(tree, artifacts, jobs)
    assert [len(output) for output in outputs] == [job["max_new"] for job in jobs]
    verdict = score(artifacts, jobs, outputs, tmp_path)
    # A gap of float32 rounding is a tie; anything above it is another token than the reference's.
    assert verdict["max_gap"] < 1e-4, verdict


def test_chunked_prompts_change_nothing(tmp_path: Path, artifacts: Path) -> None:
    tree = make_tree(tmp_path / "tree", *FASTEST, scheduler__step_tokens=256)
    rng = np.random.default_rng(4)
    jobs = [{"prompt": rng.integers(96, 2000, n).tolist(), "max_new": 6, "arrives": 0} for n in (300, 1, 420, 257)]
    outputs = generate(tree, artifacts, jobs)
    assert [len(output) for output in outputs] == [6] * 4
    assert score(artifacts, jobs, outputs, tmp_path)["max_gap"] < 1e-4


def test_aborted_sequences_leave_the_others_alone(tmp_path: Path, artifacts: Path) -> None:
    tree, jobs = make_tree(tmp_path / "tree", *FASTEST), mixed_jobs(14, seed=5, spread=20)
    for number, job in enumerate(jobs):
        job["aborts"] = job["arrives"] + number // 2 if number % 2 else None
    outputs = generate(tree, artifacts, jobs)
    kept = [(job, output) for job, output in zip(jobs, outputs, strict=True) if job["aborts"] is None]
    assert [len(output) for _, output in kept] == [job["max_new"] for job, _ in kept]
    assert score(artifacts, jobs, outputs, tmp_path)["max_gap"] < 1e-4


@pytest.mark.parametrize("recipes", [(), FUSED, FASTEST], ids=["seed", "device-sampling", "fastest"])
def test_a_draw_depends_on_its_seed_alone(tmp_path: Path, artifacts: Path, recipes: tuple[str, ...]) -> None:
    drawn = mixed_jobs(1, seed=1)[0] | {"max_new": 10, "temperature": 1.2}
    jobs = [drawn | {"seed": 7, "arrives": 0}, drawn | {"seed": 7, "arrives": 4}, drawn | {"seed": 8, "arrives": 0}]
    first, again, other = generate(make_tree(tmp_path / "tree", *recipes), artifacts, jobs + mixed_jobs(4, seed=2))[:3]
    assert first == again
    assert first != other


def test_padding_of_recorded_steps_stays_small(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", *PAGED, "gpu-cuda-graphs")
    code = "import sys; sys.path.insert(0, sys.argv[1]); from runner import ladder; print(ladder(2048, 1024))"
    done = subprocess.run([sys.executable, "-I", "-c", code, tree], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows[-1] == 2048
    assert all(0 < after - before <= max(8, before // 16) for before, after in itertools.pairwise(rows))
