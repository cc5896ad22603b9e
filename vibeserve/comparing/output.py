"""Decides how a comparison leaves the program: tables on a terminal, Markdown, JSON; the page is `page.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from search.attainment import LEAST_RUNS
from search.resampling import Interval
from vibeserve.comparing.attained import attainment
from vibeserve.comparing.comparison import Comparison, Entry
from vibeserve.comparing.sheets import Sheet, sheets
from vibeserve.comparing.spelling import stacked
from vibeserve.comparing.text import UNFAIR, caution_lines, headlines, next_steps, scale_lines

_INTERVAL = re.compile(r"\[([^+\-][^\]]*?), ([^\]]*)\]")


def print_comparison(screen: Console, comparison: Comparison) -> None:
    """Tables for people."""
    for line in caution_lines(comparison):
        screen.print(line, style="bold red" if line.startswith(UNFAIR) else "yellow", soft_wrap=True)
    for line in headlines(comparison):
        screen.print(line, style="bold", soft_wrap=True)
    for sheet in sheets(comparison):
        screen.print(f"\n{sheet.title}", soft_wrap=True)
        screen.print(_table(sheet))
        if sheet.note:
            screen.print(sheet.note, style="dim", soft_wrap=True)
    screen.print()
    for line in _footnotes(comparison):
        screen.print(line, style="dim", soft_wrap=True)
    if steps := next_steps(comparison):
        screen.print("\nNext:", style="dim")
        for step in steps:
            screen.print(f"  {step}", style="dim", soft_wrap=True)


def _footnotes(comparison: Comparison) -> list[str]:
    """The scale, and what only the page can show."""
    pictures = ["What the runs of a setting attain together, and where settings differ: --format html"]
    enough = any(len(setting.keys) >= LEAST_RUNS for setting in comparison.settings)
    return [*scale_lines(comparison), *(pictures if enough else [])]


def _table(sheet: Sheet) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, name in enumerate(sheet.header):
        table.add_column(
            name.replace(" (", "\n(").replace("_", "_\n", 1),
            justify="left" if place < sheet.words else "right",
            overflow="fold",
        )
    for row in sheet.rows:
        table.add_row(*row[: sheet.words], *(_stacked(cell) for cell in row[sheet.words :]))
    return table


def _stacked(cell: str) -> str:
    """A value above its interval, `0.86–0.89`: side by side, a few columns fill a terminal."""
    return "\n".join(_INTERVAL.sub("\\1–\\2", line) for line in stacked(cell))


def to_markdown(comparison: Comparison) -> str:
    """The same tables for a page or a pull request."""
    lines = ["# Comparison of fronts", ""]
    for line in caution_lines(comparison):
        lines += [f"> **{line}**" if line.startswith(UNFAIR) else f"> {line}", ""]
    lines += [part for line in headlines(comparison) for part in (line, "")]
    for sheet in sheets(comparison):
        lines += [f"## {sheet.title}", "", _row(sheet.header), _rule(sheet)]
        lines += [_row(row) for row in sheet.rows]
        lines += ["", *([sheet.note, ""] if sheet.note else [])]
    lines += [f"- {line}" for line in _footnotes(comparison)]
    if steps := next_steps(comparison):
        lines += ["", "Next:", "", "```", *steps, "```"]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _rule(sheet: Sheet) -> str:
    return "|" + "|".join("---" if place < sheet.words else "---:" for place in range(len(sheet.header))) + "|"


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The object of `vibeserve compare --format json` (docs/comparing.md)."""
    return {
        "headlines": headlines(comparison),
        "fair": not comparison.forced,
        "forced": list(comparison.forced),
        "caveats": list(comparison.caveats),
        "measurements": "held-out" if comparison.held_out else "search",
        "objectives": [{"name": o.name, "direction": str(o.direction), "unit": o.unit} for o in comparison.objectives],
        "ideal": comparison.ideal,
        "reference_point": comparison.reference,
        "fronts": {entry.key: _entry(comparison, entry) for entry in comparison.entries},
        "coverage": {
            a.key: {b.key: _interval(cell) for b, cell in zip(comparison.entries, row, strict=True)}
            for a, row in zip(comparison.entries, comparison.coverage, strict=True)
        },
        "differences": [
            {
                "front": d.key,
                "against": d.against,
                "hypervolume": _interval(d.hypervolume),
                "epsilon_multiplicative": _interval(d.epsilon),
                "epsilon_multiplicative_of_the_other": _interval(d.epsilon_back),
                "verdict": d.verdict,
            }
            for d in comparison.differences
        ],
        "settings": [asdict(setting) for setting in comparison.settings],
        "attainment": attainment(comparison),
        "rank_sums": [{**asdict(test), "verdict": test.verdict, "size": test.size} for test in comparison.rank_sums],
        "config": {name: dict(row) for name, row in comparison.config.items()},
        "points": {name: _metrics(comparison, member.estimates) for name, member in comparison.points.items()},
    }


def _entry(comparison: Comparison, entry: Entry) -> dict[str, Any]:
    it = entry.contender
    return {
        "name": it.name,
        "kind": str(it.kind),
        "path": str(it.place),
        "state": None if it.state is None else str(it.state),
        "setting": entry.setting,
        "rng_seed": it.rng_seed,
        "children": it.children,
        "indicators": {name: _interval(found) for name, found in entry.indicators.items()},
        "on_union_front": entry.on_union,
        "best": {
            name: {
                "member": best.member,
                **_interval(best.value),
                "gain": None if best.gain is None else _interval(best.gain),
            }
            for name, best in entry.best.items()
        },
        "members": [
            {
                "id": member.id,
                "made_by": member.made_by,
                "contribution": _interval(entry.contributions[member.id]),
                "metrics": _metrics(comparison, member.estimates),
            }
            for member in it.members
        ],
    }


def _metrics(comparison: Comparison, estimates: Mapping[str, Any]) -> dict[str, Any]:
    return {o.name: asdict(estimates[o.name]) for o in comparison.objectives}


def _interval(found: Interval) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}
