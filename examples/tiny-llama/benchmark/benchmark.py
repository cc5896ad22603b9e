"""Decides nothing of its own: runs the [[load]]s of target.toml with VibeServe's client against a running server.

    python benchmark/benchmark.py --url http://127.0.0.1:8000 --output-json FILE [--trace-seed N]

VibeServe itself runs the same loads with the same client and does not call this script; it is for measuring a server
by hand, from a checkout of VibeServe. The JSON has the objectives, and a key per metric and load: `median_ttft_ms@low`.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TARGET.parents[1]))


def measure(url: str, trace_seed: int) -> dict[str, float | None]:
    """Metrics by `name@load` and objectives by name; None where a latency is infinite because requests failed."""
    from evaluators.load import bench
    from evaluators.load.endpoint import Endpoint
    from evaluators.target import load_target

    target = load_target(TARGET)
    endpoint = Endpoint(url=url, model=target.model.name, prompt_ids=target.prompt_ids, vocab=target.vocabulary() or ())
    warmup = target.benchmark.warmup_requests
    results = bench(
        endpoint, target.loads, trace_seed=trace_seed, content_seed=secrets.randbits(62), warmup_requests=warmup
    )
    metrics = {f"{name}@{r.load.name}": value for r in results for name, value in r.metrics.items()}
    for objective in target.objectives:
        over = [metrics[f"{objective.name}@{load}"] for load in objective.loads]
        metrics[objective.name] = math.exp(sum(math.log(value) for value in over) / len(over)) if all(over) else 0.0
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--output-json", type=Path, required=True)
    parser.add_argument("--trace-seed", type=int, default=0, help="fixes arrival times and lengths")
    arguments = parser.parse_args()
    try:
        metrics = measure(arguments.url, arguments.trace_seed)
    except ModuleNotFoundError as error:
        print(f"needs VibeServe's packages and their dependencies: {error}", file=sys.stderr)
        return 2
    arguments.output_json.write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
