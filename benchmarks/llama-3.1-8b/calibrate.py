"""Measures what honest and broken servers make of the audit: the thresholds of target.toml come from here.

    python -m benchmarks... is not possible for a folder with this name; from the checkout:
    python benchmarks/llama-3.1-8b/calibrate.py --artifacts DIR [--output FILE.json]        about 2 minutes on an H200

Every variant answers the same prompts, short ones and long ones, and the reference scores the answers. It times the
reference, too, and says how much a product of three bf16 terms would differ from float32.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from variants import VARIANTS, Decoder, Variant

REFERENCE = Path(__file__).resolve().parents[2] / "examples" / "llama-3.1-8b" / "reference"
sys.path.insert(0, str(REFERENCE))
from model import Reference, load_reference  # noqa: E402
from score import score  # noqa: E402

Json = dict[str, Any]
FIGURES = ("mean_gap", "p999_gap", "max_gap", "flip_rate")
SHAPES = ((16, 64), (8, 1024))
"""Answers, prompt tokens."""
OUTPUT_TOKENS = 128


def draw_prompts(seed: int, shapes: tuple[tuple[int, int], ...], ids: tuple[int, int]) -> list[list[list[int]]]:
    """Prompts per shape."""
    rng = random.Random(seed)
    return [[[rng.randint(*ids) for _ in range(length)] for _ in range(count)] for count, length in shapes]


def judged(reference: Reference, variant: Variant, groups: list[list[list[int]]], tokens: int) -> Json:
    """The audit's figures of one variant, and the seconds that it and the audit took."""
    start_s = time.perf_counter()
    decoder = Decoder(reference.config, reference.weights, variant)
    answers = [
        {"id": str(number), "prompt_ids": prompt, "output_ids": output}
        for prompts in groups
        for number, (prompt, output) in enumerate(zip(prompts, decoder.generate(prompts, tokens), strict=True))
    ]
    made_s = time.perf_counter()
    found = score(reference, answers)
    distinct = sum(len(set(a["output_ids"])) for a in answers) / sum(len(a["output_ids"]) for a in answers)
    figures = {name: found[name] for name in (*FIGURES, "tokens")}
    seconds = {"generate_s": made_s - start_s, "score_s": time.perf_counter() - made_s}
    return {"variant": variant.name, "honest": variant.honest, **figures, "distinct": distinct, **seconds}


def table(rows: list[Json]) -> str:
    """Markdown."""
    lines = ["| variant | honest | mean gap | p99.9 gap | max gap | flips |", "|---|---|---|---|---|---|"]
    words = {True: "yes", False: "no", None: "?"}
    lines += [
        f"| {r['variant']} | {words[r['honest']]} | {r['mean_gap']:.5f} | {r['p999_gap']:.3f} | {r['max_gap']:.3f} | "
        f"{r['flip_rate']:.2%} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--shapes", default=SHAPES, type=json.loads, help="answers and prompt tokens: [[16, 64]]")
    parser.add_argument("--tokens", default=OUTPUT_TOKENS, type=int)
    parser.add_argument("--seed", default=1, type=int)
    parser.add_argument("--only", help="variants whose name contains this")
    arguments = parser.parse_args()
    start_s = time.perf_counter()
    reference = load_reference(arguments.artifacts)
    if reference.device.type == "cuda":
        torch.cuda.synchronize()
    print(f"weights in {time.perf_counter() - start_s:.2f} s on {reference.device}", flush=True)
    groups = draw_prompts(arguments.seed, arguments.shapes, (96, reference.config.vocab_size - 512))
    rows = []
    for variant in VARIANTS:
        if arguments.only and arguments.only not in variant.name:
            continue
        rows.append(judged(reference, variant, groups, arguments.tokens))
        print(json.dumps(rows[-1]), flush=True)
        if arguments.output is not None:
            arguments.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
