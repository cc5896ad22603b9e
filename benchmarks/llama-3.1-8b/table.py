"""Decides how measurements become the table: medians of runs, paired ratios with intervals, goals met or missed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from contestants import OURS, VLLM
from rows import ROWS

from population.statistics import paired_ratio

Json = dict[str, Any]
LATENCIES = ("median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms")
GOALS: dict[str, tuple[float, float]] = {
    "64x128r8": (8, 4.2), "64x128r32": (9, 4.6), "64x128r64": (11, 5.1), "64x128r128": (20, 7.5),
    "1024x128r4": (25, 4.7), "1024x128r8": (28, 5.3), "1024x128r16": (32, 7), "1024x128r32": (110, 28),
}  # fmt: skip
"""On one H200: median TTFT and median TPOT in ms."""
THROUGHPUT_GOAL = 30_000.0


def read_runs(path: Path) -> list[Json]:
    """Every run of every call so far."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def markdown(runs: Sequence[Json], client: str) -> str:
    """The rows that one client measured; empty where it measured none."""
    lines = []
    for row in ROWS:
        ours, theirs = (_values(runs, client, row.name, name) for name in (OURS, VLLM))
        if not ours:
            continue
        if row.tolerates_queue:
            lines.append(_throughput_line(row.name, ours, theirs))
        else:
            lines.append(_latency_line(row.name, ours, theirs))
    if not lines:
        return ""
    head = (
        "| row | runs | tok/s | TTFT p50 / p99 ms | TPOT p50 / p99 ms | vLLM: TTFT | vLLM: TPOT "
        "| TTFT ratio | TPOT ratio | goal TTFT, TPOT | served |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([f"Client: {client}\n", head, *lines])


def _values(runs: Sequence[Json], client: str, row: str, server: str) -> list[Json]:
    return [r for r in runs if (r["client"], r["row"], r["server"]) == (client, row, server)]


def _middle(runs: Sequence[Json], name: str) -> str:
    values = [r[name] for r in runs if r.get(name) is not None]
    return f"{median(values):,.3g}" if values and median(values) < 1000 else f"{median(values):,.0f}" if values else "–"


def _latency_line(row: str, ours: Sequence[Json], theirs: Sequence[Json]) -> str:
    ttft, tpot = GOALS[row]
    met = [_verdict(ours, "median_ttft_ms", ttft), _verdict(ours, "median_tpot_ms", tpot)]
    cells = [
        row, f"{len(ours)} : {len(theirs)}", _middle(ours, "output_throughput"),
        f"{_middle(ours, 'median_ttft_ms')} / {_middle(ours, 'p99_ttft_ms')}",
        f"{_middle(ours, 'median_tpot_ms')} / {_middle(ours, 'p99_tpot_ms')}",
        f"{_middle(theirs, 'median_ttft_ms')} / {_middle(theirs, 'p99_ttft_ms')}",
        f"{_middle(theirs, 'median_tpot_ms')} / {_middle(theirs, 'p99_tpot_ms')}",
        _ratio(theirs, ours, "median_ttft_ms"), _ratio(theirs, ours, "median_tpot_ms"), ", ".join(met), _served(ours),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _throughput_line(row: str, ours: Sequence[Json], theirs: Sequence[Json]) -> str:
    name = "output_throughput"
    values = [r[name] for r in ours]
    goal = f"≥ {THROUGHPUT_GOAL:,.0f} {'met' if median(values) >= THROUGHPUT_GOAL else 'missed'}"
    cells = [
        row, f"{len(ours)} : {len(theirs)}", _middle(ours, name), "–", "–", f"{_middle(theirs, name)} tok/s", "–",
        f"{_ratio(ours, theirs, name)} tok/s", "–", goal, _served(ours),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _verdict(runs: Sequence[Json], name: str, goal: float) -> str:
    return f"≤ {goal:g} {'met' if median(r[name] for r in runs) <= goal else 'missed'}"


def _ratio(above: Sequence[Json], below: Sequence[Json], name: str) -> str:
    """How many times better we are, by the pairs in order of measurement, with its 95 % interval."""
    pairs = [(a[name], b[name]) for a, b in zip(above, below, strict=False) if a.get(name) and b.get(name)]
    if len(pairs) < 2:
        return "–"
    found = paired_ratio([a for a, _ in pairs], [b for _, b in pairs])
    return f"{found.value:.2f} ({found.low:.2f}–{found.high:.2f})"


def _served(runs: Sequence[Json]) -> str:
    completed, failed = (sum(int(r.get(name) or 0) for r in runs) for name in ("completed", "failed"))
    return f"{completed / max(1, completed + failed):.1%}"
