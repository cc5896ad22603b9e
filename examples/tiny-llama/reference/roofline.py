"""Decides what no server can beat on this machine: the arithmetic that a token needs, over the speed of the CPUs.

    python roofline.py --output FILE        writes {metric@load: best possible value, "work": {…}}

However it is batched, cached or guessed ahead, an output token is the model's only if its logits were computed: once
through every weight matrix. Guesses have to be verified, so they need as much. A prompt's own tokens (not the shared
prefix, which may be cached) need all matrices but the head. The CPUs' speed is that of a large float32 matrix product,
the best of many on one thread, times the CPUs of the lease, although the server is given all but one of them.

`work` is for hints: operations per token, the weights that every step reads, and what the machine does of either per
second. Memory is that of one thread: CPUs share it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import tomllib
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
import numpy as np

TARGET = Path(__file__).resolve().parents[1]
MEASURE_S = 0.4
MARGIN = 1.25
"""By which a machine may be faster than it was when this ran: turbo, neighbours."""
ROWS = 256
READ_BYTES = 256 << 20
"""Far more than caches hold."""


def flop_per_s(config: dict[str, Any]) -> float:
    """Of all CPUs together: the fastest product of the MLP's shape, so that interruptions do not count."""
    rng = np.random.default_rng(0)
    columns = 2 * config["intermediate_size"]
    x = rng.standard_normal((ROWS, config["hidden_size"]), dtype=np.float32)
    weights = rng.standard_normal((config["hidden_size"], columns), dtype=np.float32)
    out = np.empty((ROWS, columns), dtype=np.float32)
    best_s, end_s = math.inf, time.monotonic() + MEASURE_S
    while time.monotonic() < end_s:
        start_s = time.perf_counter()
        np.matmul(x, weights, out=out)
        best_s = min(best_s, time.perf_counter() - start_s)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cpus * 2 * ROWS * config["hidden_size"] * columns / best_s


def bytes_per_s() -> float:
    """Read by one thread from memory: the fastest of some sums."""
    data = np.ones(READ_BYTES // 4, dtype=np.float32)
    best_s, end_s = math.inf, time.monotonic() + MEASURE_S
    while time.monotonic() < end_s or best_s == math.inf:
        start_s = time.perf_counter()
        np.dot(data, data)  # the same vector twice is read once
        best_s = min(best_s, time.perf_counter() - start_s)
    return READ_BYTES / best_s


def flops(config: dict[str, Any]) -> tuple[float, float]:
    """Of an output token, and of a prompt token, in the matrix products alone."""
    heads = config["head_dim"] * (2 * config["num_heads"] + 2 * config["num_kv_heads"])
    layer = config["hidden_size"] * (heads + 3 * config["intermediate_size"])
    prompt = 2.0 * config["num_layers"] * layer
    return prompt + 2.0 * config["hidden_size"] * config["vocab_size"], prompt


def ceilings(config: dict[str, Any], loads: list[dict[str, Any]], speed: float) -> dict[str, float]:
    """Best throughput, TPOT and TTFT of each load at `speed` FLOP/s."""
    output, prompt = flops(config)
    best: dict[str, float] = {}
    for load in loads:
        fresh = np.atleast_1d(load["input_tokens"])[0] - 1
        best[f"output_throughput@{load['name']}"] = MARGIN * speed / output
        for name, per_request in (("ttft", fresh * prompt + output), ("tpot", output)):
            for statistic in ("mean", "median"):
                best[f"{statistic}_{name}_ms@{load['name']}"] = float(per_request / speed / MARGIN * 1000)
    return best


def work(config: dict[str, Any], speed: float, read: float) -> dict[str, float]:
    """Of a token and of a step, and what the machine does per second."""
    output, prompt = flops(config)
    weight_bytes = np.dtype(np.float32).itemsize
    return {
        "flop_per_output_token": output,
        "flop_per_prompt_token": prompt,
        "bytes_per_step": output / 2 * weight_bytes,
        "flop_per_s": speed,
        "bytes_per_s": read,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    config = json.loads((TARGET / "reference" / "config.json").read_text(encoding="utf-8"))
    loads = tomllib.loads((TARGET / "target.toml").read_text(encoding="utf-8"))["load"]
    speed = flop_per_s(config)
    found = {**ceilings(config, loads, speed), "work": work(config, speed, bytes_per_s())}
    arguments.output.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
