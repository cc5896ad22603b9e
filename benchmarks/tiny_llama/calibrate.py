"""Decides the audit thresholds of examples/tiny-llama: how far honest and broken servers are from the reference.

    OPENBLAS_NUM_THREADS=1 python benchmarks/tiny_llama/calibrate.py --artifacts DIR [--draws 4] [--output FILE.md]

Every variant serves the same prompts in audit-sized samples; `reference/score.py` scores them. A threshold is three
times the largest figure of any honest sample, two times for the flip rate, but never below the FLOORS.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
TARGET = HERE.parents[2] / "examples" / "tiny-llama"
sys.path[:0] = [str(HERE.parent), str(TARGET / "reference")]
from model import load_reference, read_config  # noqa: E402
from score import score  # noqa: E402
from variants import VARIANTS, Decoder, Ids, Variant  # noqa: E402

RESPONSES, PROMPT_TOKENS, OUTPUT_TOKENS = 12, 32, 64
FIGURES = {"mean_gap": 3.0, "p999_gap": 3.0, "max_gap": 3.0, "flip_rate": 2.0}
"""Figure → multiple of the largest honest value that is still accepted."""
FLOORS = {"mean_gap": 0.0005, "p999_gap": 0.05, "max_gap": 0.05, "flip_rate": 0.02}
"""A rounding difference flips a token now and then; these keep a single flip of an honest server from failing it."""

TEXT = """\
# Audit thresholds of tiny-llama

Made by `benchmarks/tiny_llama/calibrate.py`. Every variant serves the same prompts ({draws} samples of {responses}
responses, 32 tokens in and 64 out: 768 tokens a sample) and the reference scores them: gap = (max z - z[emitted]) /
std(z), a flip is a gap above zero. Ranges are over samples.

{table}

Thresholds (`[audit]` of `target.toml`): {limits}.
Each is three times the largest figure of an honest sample (two times for flips), and not below a floor ({floors},
in this order). Float32 servers differ from the reference by the order of summation alone and flip no token here, so
that a threshold made from them would be zero and fail an honest server at the first near-tie. What decides most often
is the largest gap: it sees a single foreign token, which mean and flip rate of a long sample would hide.

Rounding weights or KV cache to float16 counts as honest. bfloat16 weights ("-") round eight times more coarsely: some
samples pass, and no promise is made. 8-bit weights are outside.

Planted phrases: guessing the token that followed the last two tokens' latest occurrence is right for {hits} of the
output tokens.
"""


def figures(prompts: Ids, outputs: Ids, reference: Any) -> dict[str, float]:
    pairs = zip(prompts.tolist(), outputs.tolist(), strict=True)
    found = score(reference, [{"id": str(i), "prompt_ids": p, "output_ids": o} for i, (p, o) in enumerate(pairs)])
    return {name: float(found[name]) for name in FIGURES}


def measure(variant: Variant, reference: Any, draws: int) -> list[dict[str, float]]:
    """The figures of `draws` samples, each of RESPONSES fresh prompts."""
    decoder = Decoder(reference.config, reference.weights, variant)
    results = []
    for draw in range(draws):
        rng = np.random.default_rng([11, draw])
        prompts = rng.integers(99, reference.config.vocab_size, (RESPONSES, PROMPT_TOKENS))
        results.append(figures(prompts, decoder.generate(prompts, OUTPUT_TOKENS), reference))
        print(f"{variant.name:40s} {results[-1]}", flush=True)
    return results


def thresholds(honest: list[dict[str, float]]) -> dict[str, float]:
    return {name: max(FLOORS[name], factor * max(r[name] for r in honest)) for name, factor in FIGURES.items()}


def accepted(result: dict[str, float], limits: dict[str, float]) -> bool:
    return all(result[name] <= limit for name, limit in limits.items())


def hit_rate(prompts: Ids, outputs: Ids) -> float:
    """Share of output tokens that the most recent earlier occurrence of the last two tokens predicts."""
    hits = 0
    for row in np.concatenate([prompts, outputs], axis=1).tolist():
        for at in range(PROMPT_TOKENS, len(row)):
            earlier = [s for s in range(at - 2) if row[s : s + 2] == row[at - 2 : at]]
            hits += bool(earlier) and row[earlier[-1] + 2] == row[at]
    return hits / outputs.size


def table(results: dict[str, list[dict[str, float]]], limits: dict[str, float]) -> list[str]:
    lines = ["| variant | honest | mean gap | largest gap | flips | passed |", "|---|---|---|---|---|---|"]
    for variant in VARIANTS:
        samples = results[variant.name]
        mean, largest, flips = (
            f"{min(values):.2g} - {max(values):.2g}" if min(values) < max(values) else f"{max(values):.2g}"
            for values in ([s[name] for s in samples] for name in ("mean_gap", "max_gap", "flip_rate"))
        )
        passed = sum(accepted(s, limits) for s in samples)
        honest = {True: "yes", False: "no", None: "-"}[variant.honest]
        lines.append(f"| {variant.name} | {honest} | {mean} | {largest} | {flips} | {passed} of {len(samples)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, required=True, help="folder that reference/build.py wrote")
    parser.add_argument("--draws", type=int, default=4, help="audit samples per variant")
    parser.add_argument("--output", type=Path, default=HERE.with_name("calibration.md"))
    arguments = parser.parse_args()
    assert read_config(TARGET / "reference" / "config.json") == read_config(arguments.artifacts / "config.json")
    reference = load_reference(arguments.artifacts)
    results = {variant.name: measure(variant, reference, arguments.draws) for variant in VARIANTS}
    limits = thresholds([s for v in VARIANTS if v.honest for s in results[v.name]])
    rng = np.random.default_rng([11, 0])
    prompts = rng.integers(99, reference.config.vocab_size, (RESPONSES, PROMPT_TOKENS))
    hits = hit_rate(prompts, Decoder(reference.config, reference.weights, VARIANTS[0]).generate(prompts, OUTPUT_TOKENS))
    report = TEXT.format(
        draws=arguments.draws,
        responses=RESPONSES,
        table="\n".join(table(results, limits)),
        limits=", ".join(f"`{name}` {limit:.2g}" for name, limit in limits.items()),
        floors=", ".join(f"{floor:g}" for floor in FLOORS.values()),
        hits=f"{hits:.0%}",
    )
    arguments.output.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
