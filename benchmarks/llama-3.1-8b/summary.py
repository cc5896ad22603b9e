"""Decides what docs/performance.md says of the comparison: one table per client, made of one or several runs.jsonl.

python benchmarks/llama-3.1-8b/summary.py results/2026-11-22b/runs.jsonl
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import floors
from contestants import OURS, VLLM
from rows import OUR_CLIENT, ROWS, VLLM_CLIENT, Row
from table import GOALS, middle, of, ratio, read_runs, text

Json = dict[str, Any]
HEAD = (
    "| in/out, req/s | TTFT p50 ms: ours, vLLM | vLLM / ours | p99: vLLM / ours "
    "| TPOT p50 ms: ours, vLLM | vLLM / ours | p99: vLLM / ours | of the floor: TTFT, TPOT |\n"
    "|---|---|---|---|---|---|---|---|"
)


def latencies(runs: Sequence[Json], row: Row) -> str:
    """A row's line; a goal is named where it was missed."""
    ours, theirs = of(runs, row, OURS), of(runs, row, VLLM)
    cells, shares = [f"{row.input_tokens}/{row.output_tokens}, {row.rate_per_s:g}"], []
    for name, goal, floor in zip(("ttft", "tpot"), GOALS[row.name], (floors.ttft_ms, floors.tpot_ms), strict=True):
        key = f"median_{name}_ms"
        found = middle(ours, key) or float("inf")
        missed = f" (goal {goal:g})" if found > goal else ""
        cells += [f"{text(found)}{missed}, {text(middle(theirs, key))}", ratio(theirs, ours, key)]
        cells.append(ratio(theirs, ours, f"p99_{name}_ms"))
        shares.append(f"{floor(row) / found:.0%}")
    return "| " + " | ".join([*cells, ", ".join(shares)]) + " |"


def overload(runs: Sequence[Json], row: Row) -> str:
    """A sentence on the row that offers more than can be served."""
    ours, theirs, name = of(runs, row, OURS), of(runs, row, VLLM), "output_throughput"
    found = middle(ours, name) or 0.0
    offered = f"{row.input_tokens}/{row.output_tokens} at {row.rate_per_s:g} requests/s offered"
    share = found / floors.tokens_per_s(row)
    return (
        f"Overload, {offered}: {found:,.0f} tok/s, vLLM {middle(theirs, name) or 0.0:,.0f}; "
        f"ours / vLLM {ratio(ours, theirs, name)}; {share:.0%} of the ceiling."
    )


def main() -> None:
    runs = [run for name in sys.argv[1:] for run in read_runs(Path(name))]
    for client in (OUR_CLIENT, VLLM_CLIENT):
        mine = [run for run in runs if run["client"] == client]
        rows = [row for row in ROWS if of(mine, row, OURS)]
        if rows:
            print(f"Client: {client}\n\n{HEAD}")
            print("\n".join(latencies(mine, row) for row in rows if not row.tolerates_queue))
            print("\n".join(f"\n{overload(mine, row)}" for row in rows if row.tolerates_queue), end="\n\n")
    for server in (OURS, VLLM):
        served, failed = (
            sum(int(run[key]) for run in runs if run["server"] == server) for key in ("completed", "failed")
        )
        print(f"{server}: {served:,} requests served, {failed} failed")


if __name__ == "__main__":
    main()
