"""Decides the audit thresholds of the cheat corpus: how far honest and broken ways of serving are from the reference.

    python -m benchmarks.cheats.calibrate [--draws 4] [--output FILE.md]      (from the root of the checkout)

As benchmarks/tiny_llama/calibrate.py, whose variants and rules it uses, for the smaller model of tests/cheats/target.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np

from evaluators.artifacts import artifacts_folder
from evaluators.target import load_target
from tests.cheats.workshop import make_target

HERE = Path(__file__).resolve().parent
TINY_LLAMA = HERE.parent / "tiny_llama"
CHECKOUT = HERE.parents[1]
sys.path[:0] = [str(TINY_LLAMA), str(CHECKOUT / "examples" / "tiny-llama" / "reference")]
from calibrate import FLOORS, RESPONSES, accepted, figures, thresholds  # noqa: E402
from model import Reference, load_reference  # noqa: E402
from variants import VARIANTS, Decoder, Variant  # noqa: E402

LAYERS = 4
PROMPT_TOKENS, OUTPUT_TOKENS = 24, 20
TEXT = """\
# Audit thresholds of the cheat corpus

Made by `python -m benchmarks.cheats.calibrate`: {draws} samples of {responses} responses per variant, {prompt} tokens
in and {output} out. Ranges are over samples; rules and variants are those of `benchmarks/tiny_llama/calibrate.py`.

| variant | honest | mean gap | largest gap | flips | passed |
|---|---|---|---|---|---|
{table}

Thresholds from the honest samples: {limits}. `tests/cheats/target/target.toml` declares them.
"""


def applicable(variant: Variant) -> bool:
    """The corpus's model has fewer layers than tiny-llama."""
    return variant.skip_layer is None or variant.skip_layer < LAYERS


def measure(variant: Variant, reference: Reference, draws: int) -> list[dict[str, float]]:
    """The figures of `draws` samples of fresh prompts."""
    decoder, results = Decoder(reference.config, reference.weights, variant), []
    for draw in range(draws):
        rng = np.random.default_rng([13, draw])
        prompts = rng.integers(99, reference.config.vocab_size, (RESPONSES, PROMPT_TOKENS))
        results.append(figures(prompts, decoder.generate(prompts, OUTPUT_TOKENS), reference))
    return results


def row(variant: Variant, samples: list[dict[str, float]], limits: dict[str, float]) -> str:
    ranges = []
    for name in ("mean_gap", "max_gap", "flip_rate"):
        low, high = min(s[name] for s in samples), max(s[name] for s in samples)
        ranges.append(f"{low:.2g} - {high:.2g}" if low < high else f"{high:.2g}")
    honest = {True: "yes", False: "no", None: "-"}[variant.honest]
    passed = sum(accepted(s, limits) for s in samples)
    return f"| {variant.name} | {honest} | {' | '.join(ranges)} | {passed} of {len(samples)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4, help="samples per variant")
    parser.add_argument("--output", type=Path, default=HERE / "calibration.md")
    arguments = parser.parse_args()
    variants = [variant for variant in VARIANTS if applicable(variant)]
    with tempfile.TemporaryDirectory() as scratch:
        target = load_target(make_target(Path(scratch) / "target"))
        reference = load_reference(artifacts_folder(target, Path(scratch) / "cache", ()))
        results = {variant.name: measure(variant, reference, arguments.draws) for variant in variants}
    limits = thresholds([sample for v in variants if v.honest for sample in results[v.name]])
    assert set(limits) == set(FLOORS)
    report = TEXT.format(
        draws=arguments.draws,
        responses=RESPONSES,
        prompt=PROMPT_TOKENS,
        output=OUTPUT_TOKENS,
        table="\n".join(row(variant, results[variant.name], limits) for variant in variants),
        limits=", ".join(f"`{name}` {limit:.2g}" for name, limit in limits.items()),
    )
    arguments.output.write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
