"""Writes the target in small: the same server code, checker, audit and kinds of load, for two CPUs and without a GPU.

python benchmarks/llama-3.1-8b/tiny_target.py DIR [--seed FOLDER]
vibeserve judge DIR DIR/seed
"""

from __future__ import annotations

import argparse
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

TARGET = Path(__file__).resolve().parents[2] / "examples" / "llama-3.1-8b"
Json = dict[str, Any]
INPUT_TOKENS = {64: 16, 1024: 160}
OUTPUT_TOKENS = 12
LEAST_PER_S, SQUEEZE = 1.5, 64
"""Rates are squeezed above this, in their order."""
WINDOW_S = 1.5


def small(settings: Json, vocab_size: int, specials: int) -> Json:
    """`target.toml` of the tiny target."""
    loads = []
    for load in settings["load"]:
        rate = LEAST_PER_S + load["rate_per_s"] / SQUEEZE
        size = {"input_tokens": INPUT_TOKENS[load["input_tokens"]], "output_tokens": OUTPUT_TOKENS}
        loads.append(load | size | {"rate_per_s": rate, "window_s": WINDOW_S})
        if "slo" in load:
            loads[-1] |= {"slo": {"ttft_ms": 1000, "tpot_ms": 100}, "window_s": WINDOW_S / 3}
    return settings | {
        "target": {"name": settings["target"]["name"] + "-tiny"},
        "server": settings["server"] | {"ready_timeout_s": 60, "stop_grace_s": 2},
        "model": settings["model"] | {"prompt_ids": [96, vocab_size - specials - 1]},
        "audit": settings["audit"] | {"responses": 16},
        "benchmark": {"repeats": 1, "warmup_requests": 1},
        "resources": {"num_gpus": 0, "cpus": 2},
        "load": loads,
    }


def write_tiny_target(folder: Path, seed: Path | None = None) -> None:
    """The whole target folder; `seed`: the server in it, instead of the target's own."""
    ignored = shutil.ignore_patterns("__pycache__", "seed")
    shutil.copytree(TARGET, folder, ignore=ignored, dirs_exist_ok=True)
    reference = folder / "reference"
    shutil.copyfile(reference / "tiny.json", reference / "config.json")
    shape = json.loads((reference / "config.json").read_text(encoding="utf-8"))
    settings = tomllib.loads((TARGET / "target.toml").read_text(encoding="utf-8"))
    made = small(settings, shape["vocab_size"], shape["num_special_tokens"])
    (folder / "target.toml").write_text(tomli_w.dumps(made), encoding="utf-8")
    server = seed or TARGET / "seed"
    if server.is_dir():
        shutil.copytree(server, folder / "seed", ignore=ignored, dirs_exist_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=Path, help="folder of a server; default: the target's own seed")
    arguments = parser.parse_args()
    write_tiny_target(arguments.folder, arguments.seed)


if __name__ == "__main__":
    main()
