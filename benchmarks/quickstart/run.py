"""Runs the quickstart once per seed, as a user would, and writes what came out: results.json and results.md.

    python -m benchmarks.quickstart.run [--seeds 1 2 3 4 5] [--grid benchmarks/quickstart/grid.json]

Gains come from the final measurements on the held-out trace, which no candidate was selected by; the share of the
grid's hypervolume comes from the search's own trace, pinned to the one that the grid was measured on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.quickstart.grid import TRACE_SEED
from benchmarks.search.table import Table, load_table
from population.archive import Archive
from population.candidate import candidate_id
from population.ledger import read_events
from population.replay import State
from search.indicators import hypervolume

HERE = Path(__file__).resolve().parent
THROUGHPUT = "output_throughput"


def run(seed: int, runs_dir: Path) -> tuple[dict[str, Any], float]:
    """The object that `vibeserve run --json` prints last, and the wall seconds of the whole command.

    A run that `runs_dir` holds already is not repeated.
    """
    done = runs_dir / f"summary-{seed}.json"
    if done.exists():
        kept = json.loads(done.read_text(encoding="utf-8"))
        return kept["summary"], kept["wall_s"]
    command = [sys.executable, "-m", "vibeserve", "run", "--preset", "quickstart", "--seed", str(seed), "--json"]
    command += ["--runs-dir", str(runs_dir), "-s", f"evaluation.trace_seed={TRACE_SEED}"]
    started = time.monotonic()
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=1200)
    summary, wall_s = json.loads(result.stdout.splitlines()[-1]), time.monotonic() - started
    done.write_text(json.dumps({"summary": summary, "wall_s": wall_s}), encoding="utf-8")
    return summary, wall_s


def figures(summary: dict[str, Any], wall_s: float, table: Table | None) -> dict[str, Any]:
    """Everything the table of results shows of one run."""
    run_dir = Path(summary["run_dir"])
    events = list(read_events(run_dir / "ledger"))
    state = State.replay(events)
    archive = state.archive
    finals = {**summary["baselines"], **summary["held_out"]}
    members = [name for name in summary["held_out"] if name != candidate_id(0)]
    best = max(members, key=lambda name: float(finals[name][THROUGHPUT]["value"]))
    share = None if table is None else round(_share(archive, table), 3)
    used_s = state.mutate_s + state.evaluate_s
    ended = [e for e in events if e.kind in ("ended", "proposed")]
    return {
        "seed": summary["rng_seed"],
        "children": summary["children"],
        "search_s": round(ended[-1].time_s - ended[0].time_s, 1),
        "wall_s": round(wall_s, 1),
        "overhead": round(1 - used_s / wall_s, 4),
        "evaluation_s": round(median(c.cost_s for c in archive.candidates.values()), 2),
        "scored": summary["scored"],
        "rejected": summary["rejected"],
        "front": len(archive.front),
        "hypervolume_share": share,
        "best": {"id": best, "throughput": finals[best][THROUGHPUT]},
        "seed_throughput": finals[candidate_id(0)][THROUGHPUT],
        "baseline_throughput": finals["sequential-kv"][THROUGHPUT],
        "over_seed": round(finals[best][THROUGHPUT]["value"] / finals[candidate_id(0)][THROUGHPUT]["value"], 2),
        "over_sequential_kv": round(
            finals[best][THROUGHPUT]["value"] / finals["sequential-kv"][THROUGHPUT]["value"], 2
        ),
        "members": {name: {o: m["value"] for o, m in finals[name].items()} for name in members},
    }


def _share(archive: Archive, table: Table) -> float:
    """The front's hypervolume over that of the whole grid, each with the reference point at the seed as it was measured
    in the same hour: a shared machine's speed differs from day to day, the gain over the seed much less."""
    grid_NM = np.array([table.true_costs(row) for row in table.rows])
    reached = hypervolume(archive.costs_of(archive.front), archive.costs(candidate_id(0)))
    return reached / hypervolume(grid_NM, table.true_costs(table.seed))


COLUMNS = {
    "over_seed": ("throughput over the seed server", "×"),
    "over_sequential_kv": ("over sequential with a KV cache", "×"),
    "front": ("front members", ""),
    "hypervolume_share": ("share of the grid's hypervolume", ""),
    "children": ("children", ""),
    "search_s": ("search", " s"),
    "wall_s": ("whole command", " s"),
    "overhead": ("our overhead", ""),
    "evaluation_s": ("one evaluation", " s"),
}


def markdown(rows: list[dict[str, Any]], machine: str) -> str:
    """The table of every seed, with medians."""
    lines = [
        "# Quickstart: what five minutes on two cores find",
        "",
        "Made by `python -m benchmarks.quickstart.run` (all values *measured*; raw: results.json). Throughputs come",
        "from the final measurements on the held-out trace, which no candidate was selected by. " + machine,
        "",
        "| seed | " + " | ".join(title for title, _ in COLUMNS.values()) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for row in rows:
        lines.append(f"| {row['seed']} | " + " | ".join(f"{row[k]}{unit}" for k, (_, unit) in COLUMNS.items()) + " |")
    middle = {k: median(float(row[k] or 0) for row in rows) for k in COLUMNS}
    lines.append("| **median** | " + " | ".join(f"{middle[k]:.4g}{unit}" for k, (_, unit) in COLUMNS.items()) + " |")
    lines += [
        "",
        "Front members on the held-out trace:",
        "",
        "| seed | member | tok/s | TTFT ms | TPOT ms |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        for name, values in row["members"].items():
            cells = " | ".join(f"{value:.4g}" for value in values.values())
            lines.append(f"| {row['seed']} | {name} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--grid", type=Path, default=HERE / "grid.json", help="without it there is no share")
    parser.add_argument("--runs-dir", type=Path, default=None, help="keep the runs, and use those it holds already")
    parser.add_argument("--machine", default="", help="a sentence about the machine for results.md")
    arguments = parser.parse_args()
    table = load_table(arguments.grid) if arguments.grid.exists() else None
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in arguments.seeds:
            folder = arguments.runs_dir or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            summary, wall_s = run(seed, folder)
            rows.append(figures(summary, wall_s, table))
            print(json.dumps(rows[-1]), flush=True)
            (HERE / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            (HERE / "results.md").write_text(markdown(rows, arguments.machine), encoding="utf-8")


if __name__ == "__main__":
    main()
