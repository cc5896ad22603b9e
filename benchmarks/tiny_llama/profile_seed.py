"""Decides where the seed server's time goes: one greedy reply of typical size, by kind of work.

    OPENBLAS_NUM_THREADS=1 python benchmarks/tiny_llama/profile_seed.py --artifacts DIR [--output FILE.md]

Matrix products are timed by wrapping the arrays' `@`; attention products and everything else are what remains.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2] / "examples" / "tiny-llama" / "seed"))
from engine import Engine  # noqa: E402
from model import Model  # noqa: E402
from sequence import Sequence  # noqa: E402

PROMPT_TOKENS, OUTPUT_TOKENS = 32, 64


class Timed(np.ndarray[Any, Any]):
    """A weight matrix that clocks the products it is the right-hand side of; the products are plain arrays."""

    clock: ClassVar[defaultdict[str, float]] = defaultdict(float)
    label: str
    flops = 0

    def __rmatmul__(self, other: Any) -> Any:
        plain = self.view(np.ndarray)
        start = time.perf_counter()
        product = other @ plain
        Timed.clock[self.label] += time.perf_counter() - start
        Timed.flops += 2 * other.shape[0] * plain.size
        return product


def wrap(model: Any) -> None:
    """Replace the model's weight matrices by clocked views of them."""
    for name in ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down"):
        for layer in model._layers:
            view = getattr(layer, name).view(Timed)
            view.label = "attention projections" if name in ("wq", "wk", "wv", "wo") else "MLP"
            object.__setattr__(layer, name, view)
    model._head = model._head.view(Timed)
    model._head.label = "output head"


def generate(model: Any) -> tuple[float, int]:
    """Wall seconds and steps of one reply, by stepping the engine without its thread."""
    prompt = np.random.default_rng(3).integers(99, model.config.vocab_size, PROMPT_TOKENS).tolist()
    seq = Sequence(id=0, tokens=prompt, prompt_len=PROMPT_TOKENS, max_new_tokens=OUTPUT_TOKENS)
    engine = Engine(model, lambda outputs: None, lambda: None)
    engine.scheduler.add(seq)
    start, steps = time.perf_counter(), 0
    while engine.scheduler.has_work():
        engine._step()
        steps += 1
    return time.perf_counter() - start, steps


def report(total_s: float, steps: int, plain_s: float) -> str:
    rows = dict(sorted(Timed.clock.items(), key=lambda item: -item[1]))
    rows["everything else: attention scores, softmax, norms, RoPE, activations, Python"] = total_s - sum(rows.values())
    product_s = sum(Timed.clock.values())
    # What a server with a KV cache would compute: every position once.
    positions = sum(range(PROMPT_TOKENS, PROMPT_TOKENS + OUTPUT_TOKENS))
    needed = PROMPT_TOKENS + OUTPUT_TOKENS - 1
    lines = [
        "# Where the seed server's time goes",
        "",
        f"Made by `benchmarks/tiny_llama/profile_seed.py`: one request, {PROMPT_TOKENS} tokens in,",
        f"{OUTPUT_TOKENS} out, engine only, one BLAS thread.",
        "Absolute times are this machine's; the shares are what matters.",
        "",
        "| | share | ms per token |",
        "|---|---|---|",
        *(f"| {name} | {t / total_s:.1%} | {t / steps * 1e3:.2f} |" for name, t in rows.items()),
        f"| total | 100 % | {total_s / steps * 1e3:.2f} |",
        "",
        f"Without the clocks it takes {plain_s / steps * 1e3:.2f} ms per token. The weight products run at",
        f"{Timed.flops / product_s / 1e9:.0f} GFLOP/s: what is wasted is not how they are computed but how often.",
        f"{positions:,} positions are computed where {needed} would do with a KV cache, {positions / needed:.0f} times",
        "as many; and requests wait for one another. The output head is applied to the last position alone.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, required=True, help="folder that reference/build.py wrote")
    parser.add_argument("--output", type=Path, default=HERE.with_name("profile_seed.md"))
    arguments = parser.parse_args()
    model = Model(arguments.artifacts)
    generate(model)
    plain_s, _ = generate(model)
    wrap(model)
    total_s, steps = generate(model)
    arguments.output.write_text(report(total_s, steps, plain_s), encoding="utf-8")


if __name__ == "__main__":
    main()
