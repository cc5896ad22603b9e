"""Measures what each recipe adds: the seed and ever longer lists of recipes, each served and loaded for some seconds.

    python benchmarks/llama-3.1-8b/ladder.py --output FILE.jsonl --artifacts DIR [--rungs 0-3] [--seconds 5]

A first look and no claim: one closed-loop window per tree and concurrency, by `vibeserve bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from trees import CHECKOUT, FUSED, GRAPHS, PAGED, make_tree

RUNGS = (
    (),
    ("static-kv",),
    ("static-kv", "mixed-batching"),
    PAGED,
    FUSED,
    GRAPHS,
    (*GRAPHS, "async-scheduling"),
    (*GRAPHS, "async-scheduling", "http-process"),
    (*GRAPHS, "async-scheduling", "http-process", "streaming-matmul"),
)
READY_TIMEOUT_S = 120.0
METRICS = ("output_throughput", "median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms")
CONCURRENCY = (16, 1)


def measure(tree: Path, artifacts: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Start-up time, and the metrics per concurrency."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "server.py", "--port", str(port), "--artifacts", str(artifacts.resolve())]
    start_s = time.monotonic()
    server = subprocess.Popen(command, cwd=tree, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        while not _healthy(url):
            if server.poll() is not None or time.monotonic() > start_s + READY_TIMEOUT_S:
                raise SystemExit(f"the server of {tree.name} did not become ready; its output is above")
            time.sleep(0.1)
        found: dict[str, Any] = {"boot_s": round(time.monotonic() - start_s, 1)}
        for concurrency in CONCURRENCY:
            found[f"c{concurrency}"] = _bench(url, concurrency, arguments)
        return found
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _bench(url: str, concurrency: int, arguments: argparse.Namespace) -> dict[str, float]:
    options = ["--concurrency", str(concurrency), "--duration", str(arguments.seconds), "--json"]
    options += ["--input-len", "64", "--output-len", "128", "--prompt-ids", arguments.prompt_ids]
    options += ["--seed", str(time.time_ns() % 10**6)]
    done = subprocess.run(
        [sys.executable, "-m", "vibeserve", "bench", url, *options],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"the client failed:\n{done.stdout}{done.stderr}")
    figures = json.loads(done.stdout)
    figures = figures.get("metrics", figures)
    return {name: round(figures[name], 2) for name in METRICS if isinstance(figures.get(name), int | float)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="file that lines are appended to")
    parser.add_argument("--artifacts", type=Path, required=True, help="folder that reference/build.py wrote")
    parser.add_argument("--rungs", default=f"0-{len(RUNGS) - 1}", help="first and last rung")
    parser.add_argument("--seconds", type=float, default=5.0, help="per window")
    parser.add_argument("--prompt-ids", default="96-127999", help="range of prompts' tokens")
    arguments = parser.parse_args()
    first, last = (int(part) for part in arguments.rungs.split("-"))
    for number in range(first, last + 1):
        with tempfile.TemporaryDirectory() as scratch:
            tree = Path(scratch) / "tree"
            make_tree(tree, RUNGS[number])
            line = json.dumps(
                {"rung": number, "recipes": RUNGS[number]} | measure(tree, arguments.artifacts, arguments)
            )
        print(line, flush=True)
        with arguments.output.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
