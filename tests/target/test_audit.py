"""The audit of tiny-llama: honest variants pass, each broken one fails, malformed files are named."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_llama import TARGET, run_script
from variants import VARIANTS, Decoder, Variant

LIMITS = tomllib.loads((TARGET / "target.toml").read_text(encoding="utf-8"))["audit"]
FIGURES = ("mean_gap", "p999_gap", "max_gap", "flip_rate")
PROMPTS = np.random.default_rng(5).integers(99, 8192, (12, 24))
OUTPUT_TOKENS = 32
# benchmarks/tiny_llama/calibrate.py has the others: slow ones, and those that are broken more grossly than these.
OMITTED = {"float64", "16 KV rows lost", "layer 2 skipped", "one KV row lost (last of the prompt)"}
FAST = [v for v in VARIANTS if v.honest is not None and v.batched and v.name not in OMITTED]


def scored(reference: Any, variant: Variant) -> dict[str, Any]:
    from score import score

    outputs = Decoder(reference.config, reference.weights, variant).generate(PROMPTS, OUTPUT_TOKENS).tolist()
    pairs = zip(PROMPTS.tolist(), outputs, strict=True)
    return dict(score(reference, [{"id": str(i), "prompt_ids": p, "output_ids": o} for i, (p, o) in enumerate(pairs)]))


@pytest.mark.parametrize("variant", FAST, ids=lambda v: v.name)
def test_honest_variants_pass_and_broken_ones_fail(reference: Any, variant: Variant) -> None:
    found = scored(reference, variant)
    assert all(found[name] <= LIMITS[name] for name in FIGURES) == variant.honest, found


def test_command_line(artifacts: Path, reference: Any, tmp_path: Path) -> None:
    outputs = Decoder(reference.config, reference.weights, VARIANTS[0]).generate(PROMPTS, 40).tolist()
    outputs[3][36] = 4242
    lines = [
        json.dumps({"id": f"r{i}", "load": "high", "prompt_ids": p, "output_ids": o[: 40 - i]})
        for i, (p, o) in enumerate(zip(PROMPTS.tolist(), outputs, strict=False))
    ]
    responses, output = tmp_path / "responses.jsonl", tmp_path / "scores.json"
    responses.write_text("\n".join(lines) + "\n", encoding="utf-8")
    start = time.monotonic()
    done = run_script(
        "reference/score.py", "--artifacts", str(artifacts), "--responses", str(responses), "--output", str(output)
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 10
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["tokens"] == sum(40 - i for i in range(12))
    worst = max(found["per_response"], key=lambda r: r["max_gap"])
    assert (worst["id"], worst["worst_position"]) == ("r3", 36)
    assert [r["id"] for r in found["per_response"]] == [f"r{i}" for i in range(12)]
    assert found["max_gap"] == worst["max_gap"] > 1


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"prompt_ids": [1]}',
        '{"prompt_ids": [1], "output_ids": [8192]}',
        '{"prompt_ids": [1], "output_ids": [true]}',
    ],
)
def test_malformed_responses_are_named(artifacts: Path, tmp_path: Path, line: str) -> None:
    responses = tmp_path / "responses.jsonl"
    responses.write_text('{"prompt_ids": [100], "output_ids": [100]}\n' + line + "\n", encoding="utf-8")
    output = tmp_path / "scores.json"
    done = run_script(
        "reference/score.py", "--artifacts", str(artifacts), "--responses", str(responses), "--output", str(output)
    )
    assert done.returncode == 1
    assert not output.exists()
    assert "responses.jsonl:2" in done.stderr
    assert "Traceback" not in done.stderr
