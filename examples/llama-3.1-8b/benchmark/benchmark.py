"""Decides nothing of its own: runs the [[load]]s of target.toml with VibeServe's client against a running server.

    python benchmark/benchmark.py --url URL --artifacts DIR --output-json FILE [--loads 64x128r8,max] [--trace-seed N]

VibeServe itself runs the same loads with the same client and does not call this script; it is for measuring a server
by hand, from a checkout of VibeServe. The JSON has a key per metric and load, `median_ttft_ms@64x128r8`, and the
objectives whose loads were all run.
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


def measure(arguments: argparse.Namespace) -> dict[str, float | None]:
    """Metrics by `name@load` and objectives by name; None where a latency is infinite because requests failed."""
    from evaluators.load import bench
    from evaluators.load.endpoint import Endpoint
    from evaluators.target import load_target

    target = load_target(TARGET)
    wanted = set(arguments.loads.split(",")) if arguments.loads else {load.name for load in target.loads}
    endpoint = Endpoint(
        url=arguments.url,
        model=target.model.name,
        prompt_ids=target.prompt_ids,
        vocab=target.vocabulary(arguments.artifacts) or (),
        max_tokens_per_chunk=target.server.max_tokens_per_chunk,
    )
    results = bench(
        endpoint,
        [load for load in target.loads if load.name in wanted],
        trace_seed=arguments.trace_seed,
        content_seed=secrets.randbits(62),
        warmup_requests=target.benchmark.warmup_requests,
    )
    metrics = {f"{name}@{r.load.name}": value for r in results for name, value in r.metrics.items()}
    for objective in target.objectives:
        if wanted.issuperset(objective.loads):
            over = [metrics[f"{objective.name}@{load}"] for load in objective.loads]
            metrics[objective.name] = math.exp(sum(math.log(v) for v in over) / len(over)) if all(over) else 0.0
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--artifacts", type=Path, required=True, help="folder that reference/build.py wrote")
    parser.add_argument("--output-json", type=Path, required=True)
    parser.add_argument("--loads", help="names with commas; default: all")
    parser.add_argument("--trace-seed", type=int, default=0, help="fixes arrival times and lengths")
    arguments = parser.parse_args()
    try:
        metrics = measure(arguments)
    except ModuleNotFoundError as error:
        print(f"needs VibeServe's packages and their dependencies: {error}", file=sys.stderr)
        return 2
    arguments.output_json.write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
