"""Decides how measurements become tables: medians of runs, ratios of pairs with intervals, goals, shares of floors."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import floors
from contestants import OURS, VLLM
from rows import ROWS, Row

from population.statistics import paired_ratio

Json = dict[str, Any]
GOALS: dict[str, tuple[float, float]] = {
    "64x128r8": (8, 4.2), "64x128r32": (9, 4.6), "64x128r64": (11, 5.1), "64x128r128": (20, 7.5),
    "1024x128r4": (25, 4.7), "1024x128r8": (28, 5.3), "1024x128r16": (32, 7), "1024x128r32": (110, 28),
}  # fmt: skip
"""On one H200: median TTFT and median TPOT in ms."""
THROUGHPUT_GOAL = 30_000.0
LATENCY_HEAD = (
    "| {name}, ms | runs | p50 | vLLM p50 | vLLM / ours | goal | floor: reached | p99 | vLLM p99 | vLLM / ours |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)
THROUGHPUT_HEAD = (
    "| tok/s | runs | ours | vLLM | ours / vLLM | goal | ceiling: reached | served | vLLM served |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def read_runs(path: Path) -> list[Json]:
    """Every run of every call so far."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def markdown(runs: Sequence[Json], client: str) -> str:
    """The rows that one client measured, as three tables; empty where it measured none."""
    mine = [run for run in runs if run["client"] == client]
    rows = [row for row in ROWS if any(run["row"] == row.name and run["server"] == OURS for run in mine)]
    steady = [row for row in rows if not row.tolerates_queue]
    tables = []
    if steady:
        for place, (name, floor) in enumerate((("ttft", floors.ttft_ms), ("tpot", floors.tpot_ms))):
            lines = [_latency_line(mine, row, name, GOALS[row.name][place], floor) for row in steady]
            tables.append("\n".join([LATENCY_HEAD.format(name=name.upper()), *lines]))
    if rows:
        tables.append("\n".join([THROUGHPUT_HEAD, *(_throughput_line(mine, row) for row in rows)]))
    return "\n\n".join([f"Client: {client}", *tables]) if tables else ""


def of(runs: Sequence[Json], row: Row, server: str) -> list[Json]:
    """A server's runs of a row, in order."""
    return [run for run in runs if (run["row"], run["server"]) == (row.name, server)]


def _latency_line(runs: Sequence[Json], row: Row, name: str, goal: float, floor: Callable[[Row], float]) -> str:
    ours, theirs = of(runs, row, OURS), of(runs, row, VLLM)
    typical, tail = f"median_{name}_ms", f"p99_{name}_ms"
    least, found = floor(row), middle(ours, typical)
    cells = [
        row.name, f"{len(ours)} : {len(theirs)}", text(found), text(middle(theirs, typical)),
        ratio(theirs, ours, typical), f"≤ {goal:g} {_verdict(found is not None and found <= goal)}",
        f"{text(least)}: {least / found:.0%}" if found else "–",
        text(middle(ours, tail)), text(middle(theirs, tail)), ratio(theirs, ours, tail),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _throughput_line(runs: Sequence[Json], row: Row) -> str:
    ours, theirs = of(runs, row, OURS), of(runs, row, VLLM)
    name, goal, reached = "output_throughput", "", ""
    if row.tolerates_queue and (found := middle(ours, name)) is not None:
        goal = f"≥ {THROUGHPUT_GOAL:,.0f} {_verdict(found >= THROUGHPUT_GOAL)}"
        reached = f"{text(floors.tokens_per_s(row))}: {found / floors.tokens_per_s(row):.0%}"
    cells = [
        row.name, f"{len(ours)} : {len(theirs)}", text(middle(ours, name)), text(middle(theirs, name)),
        ratio(ours, theirs, name), goal, reached, _served(ours), _served(theirs),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def middle(runs: Sequence[Json], name: str) -> float | None:
    """The median of the runs."""
    values = [run[name] for run in runs if run.get(name) is not None]
    return median(values) if values else None


def text(value: float | None) -> str:
    """Three digits, or a dash for nothing."""
    return "–" if value is None else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _verdict(met: bool) -> str:
    return "met" if met else "missed"


def ratio(above: Sequence[Json], below: Sequence[Json], name: str) -> str:
    """By the pairs that were measured one right after the other, with the 95 % interval."""
    partner = {run["pair"]: run[name] for run in below if "pair" in run and run.get(name)}
    pairs = [(run[name], partner[run["pair"]]) for run in above if run.get("pair") in partner and run.get(name)]
    if len(pairs) < 2:
        return "–"
    found = paired_ratio([a for a, _ in pairs], [b for _, b in pairs])
    return f"{found.value:.2f} ({found.low:.2f}–{found.high:.2f})"


def _served(runs: Sequence[Json]) -> str:
    completed, failed = (sum(int(run.get(name) or 0) for run in runs) for name in ("completed", "failed"))
    return f"{completed / (completed + failed):.1%}" if completed + failed else "–"
