"""Writes the target as a batch service wants it: throughput first, service levels that are met late rather than early.

    python benchmarks/llama-3.1-8b/throughput_target.py DIR
    vibeserve run DIR --preset recipes -s search.frontier_bias=0.9

Model, judge, audit and hardware are those of `examples/llama-3.1-8b`. Loads are its busiest, the overload lasts longer,
and the rate is reported that keeps a first token within half a second and 40 tokens per second and stream. On a host
without isolation DIR must lie in the checkout, as `examples/llama-3.1-8b-throughput`: tier C is for its own targets.
"""

from __future__ import annotations

import argparse
import shutil
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

TARGET = Path(__file__).resolve().parents[2] / "examples" / "llama-3.1-8b"
LOADS: dict[str, dict[str, Any]] = {
    "64x128r128": {},
    "1024x128r32": {},
    "max": {"window_s": 5},
    "slo": {"rate_per_s": 192, "window_s": 1.5, "slo": {"ttft_ms": 500, "tpot_ms": 25}},
}
"""The loads that stay, and what changes in each."""
BUSY = ["64x128r128", "1024x128r32"]
OBJECTIVES = [
    {"name": "output_throughput", "direction": "max", "unit": "tok/s", "loads": ["max"]},
    {"name": "median_ttft_ms", "direction": "min", "unit": "ms", "loads": BUSY, "relative_noise": 0.1},
    {"name": "median_tpot_ms", "direction": "min", "unit": "ms", "loads": BUSY},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    shutil.copytree(TARGET, folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    settings = tomllib.loads((TARGET / "target.toml").read_text(encoding="utf-8"))
    settings["target"]["name"] += "-throughput"
    settings["load"] = [load | LOADS[load["name"]] for load in settings["load"] if load["name"] in LOADS]
    (folder / "target.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
    wanted = {"objective": OBJECTIVES, "pareto": {"relative_noise": 0.05}}
    (folder / "objectives.toml").write_text(tomli_w.dumps(wanted), encoding="utf-8")


if __name__ == "__main__":
    main()
