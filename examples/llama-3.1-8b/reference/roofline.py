"""Decides what no server can beat on this machine: bytes and arithmetic of tokens, over what the GPU was seen to do.

    python roofline.py --output FILE        writes {metric@load: best possible value, "work": {…}}

- *Throughput*: however it is batched or guessed ahead, a token is the model's only if its logits were computed, once
  through every weight matrix; its prompt, a request's share of it, went through all but the head.
- *TTFT*: at least one read of all weights, and the arithmetic of the whole prompt.
- *TPOT*: at least one read of all weights per step, which brings at most `max_tokens_per_chunk` tokens of an answer,
  the first step too; an answer that fits into it has no TPOT to speak of.
Weights count one byte each and arithmetic twice the rate of bf16, so that 8-bit servers are below these, too; whether
their answers pass is the audit's business.

`work` is for hints: operations per token, the bytes of weights that every step reads (bf16; float32 on a CPU), and what
was seen per second of either.
"""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Json = dict[str, Any]
TARGET = Path(__file__).resolve().parents[1]
MARGIN = 1.25
"""By which a GPU may be faster than it was when this ran."""
PRODUCT, COPY_BYTES = 8192, 4 << 30
PRODUCT_ON_CPU, COPY_BYTES_ON_CPU = 512, 64 << 20
TIMES = 10
LATENCIES = ("mean", "median", "p90", "p95", "p99")


def best_s(work: Callable[[], object], cuda: bool) -> float:
    """Seconds of the fastest of some runs after the first, so that start-up and interruptions do not count."""
    seconds = []
    for _ in range(TIMES + 1):
        start_s = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start_s)
    return min(seconds[1:])


def speeds() -> tuple[float, float]:
    """FLOP/s of a product of random matrices (bf16; float32 on a CPU), and bytes/s, read and written, of a copy."""
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    size, count = (PRODUCT, COPY_BYTES) if cuda else (PRODUCT_ON_CPU, COPY_BYTES_ON_CPU)
    dtype = torch.bfloat16 if cuda else torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source = torch.randint(0, 255, (count,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size**3 / best_s(lambda: a @ b, cuda), 2 * count / best_s(lambda: target.copy_(source), cuda)


def parameters(config: Json) -> tuple[int, int]:
    """Of all weight matrices but the head, and of the head."""
    heads = config["head_dim"] * (2 * config["num_attention_heads"] + 2 * config["num_key_value_heads"])
    layer = config["hidden_size"] * (heads + 3 * config["intermediate_size"])
    return config["num_hidden_layers"] * layer, config["hidden_size"] * config["vocab_size"]


def ceilings(config: Json, target: Json, flop_per_s: float, bytes_per_s: float) -> dict[str, float]:
    """Best throughput, TTFT and TPOT of each load."""
    body, head = parameters(config)
    speed, read_s = 2 * flop_per_s * MARGIN, (body + head) / bytes_per_s / MARGIN
    per_step = target["server"]["max_tokens_per_chunk"]
    best: dict[str, float] = {}
    for load in target["load"]:
        prompt, output = (_range(load[key]) for key in ("input_tokens", "output_tokens"))
        per_token = 2 * (body + head) + 2 * body * (prompt[0] - 1) / output[1]
        best[f"output_throughput@{load['name']}"] = speed / per_token
        later_steps = max(0, -(-output[0] // per_step) - 1)
        first_s = max(read_s, 2 * (body * prompt[0] + head) / speed)
        for statistic in LATENCIES:
            best[f"{statistic}_ttft_ms@{load['name']}"] = first_s * 1000
            if later_steps:
                best[f"{statistic}_tpot_ms@{load['name']}"] = later_steps * read_s / (output[1] - 1) * 1000
    return best


def work(config: Json, flop_per_s: float, bytes_per_s: float, weight_bytes: int) -> dict[str, float]:
    """Of a token and of a step, and what the machine does per second; `weight_bytes`: of one weight."""
    body, head = parameters(config)
    return {
        "flop_per_output_token": 2.0 * (body + head),
        "flop_per_prompt_token": 2.0 * body,
        "bytes_per_step": float(weight_bytes) * (body + head),
        "flop_per_s": flop_per_s,
        "bytes_per_s": bytes_per_s,
    }


def _range(tokens: int | list[int]) -> tuple[int, int]:
    return (tokens, tokens) if isinstance(tokens, int) else (tokens[0], tokens[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    config = json.loads((TARGET / "reference" / "config.json").read_text(encoding="utf-8"))
    target = tomllib.loads((TARGET / "target.toml").read_text(encoding="utf-8"))
    seen = speeds()
    weight_bytes = 2 if torch.cuda.is_available() else 4
    found = {**ceilings(config, target, *seen), "work": work(config, *seen, weight_bytes)}
    arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
