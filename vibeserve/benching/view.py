"""Decides how measurements outside a run look to a person."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from evaluators.load.result import LoadResult
from population.statistics import Estimate
from vibeserve.benching.measuring import Measured
from vibeserve.conditions import Verdict
from vibeserve.wording import clean, gain, number

_ROWS = (
    ("completed", "completed", ""),
    ("failed", "failed", ""),
    ("cut off by the window", "censored", ""),
    ("duration", "duration", "s"),
    ("request throughput", "request_throughput", "req/s"),
    ("output throughput", "output_throughput", "tok/s"),
    ("total throughput", "total_token_throughput", "tok/s"),
    ("goodput", "request_goodput", "req/s"),
    ("highest rate", "max_rate_per_s", "req/s"),
)
_LATENCIES = tuple(
    (f"{statistic} {short.upper()}", f"{statistic}_{short}_ms", "ms")
    for short in ("ttft", "tpot", "itl", "e2el")
    for statistic in ("mean", "median", "p90", "p99")
)
_NO_ROUTE = re.compile(r" (404|405|501) ")
_COMPARED = (
    "output_throughput",
    "request_goodput",
    "max_rate_per_s",
    *(f"{statistic}_{short}_ms" for short in ("ttft", "tpot", "e2el") for statistic in ("median", "p99")),
)


def show(
    screen: Console, measured: Sequence[Measured], ratios: Mapping[str, Estimate], judged: Sequence[Verdict]
) -> None:
    """Every load of every server, the comparison where there are two, and what failed."""
    for one in measured:
        for place, result in enumerate(one.repeats[0]):
            if len(one.repeats[0]) > 1 or len(measured) > 1:
                screen.print(f"\n{one.url}, load {result.load.name}", soft_wrap=True)
            screen.print(load_table(one, result.load.name))
            for line in _complaints([results[place] for results in one.repeats]):
                screen.print(line, soft_wrap=True, markup=False)
    if len(measured) > 1:
        screen.print(against_table(measured[0], measured[1], ratios))
    for line in failures(judged):
        screen.print(line, soft_wrap=True)


def _complaints(seen: Sequence[LoadResult]) -> list[str]:
    """Warnings and failures of one load, each kind once however many repeats had it."""
    alike: dict[str, list[str]] = {}
    for text in (text for result in seen for text in result.warnings):
        alike.setdefault(re.sub(r"\d+", "", text), []).append(text)
    several = f" (in {{}} of {len(seen)} repeats)" if len(seen) > 1 else ""
    lines = [f"warning: {texts[0]}{several.format(len(texts))}" for texts in alike.values()]
    groups = [group for result in seen for group in result.errors]
    for kind in dict.fromkeys(group.kind for group in groups):
        same = [group for group in groups if group.kind == kind]
        evidence = next((text for group in same for text in group.evidence), "")
        lines.append(clean(f"{sum(group.count for group in same)} failed, {kind}: {evidence}"))
    if any(
        not r.metrics.get("completed") and any(_NO_ROUTE.search(t) for g in r.errors for t in g.evidence) for r in seen
    ):
        lines.append(
            "expected a server with /v1/completions, which takes prompts as token ids; this one does not answer there"
        )
    return lines


def load_table(measured: Measured, load: str) -> Table:
    """Every metric of one load; with intervals where there are repeats."""
    several = len(measured.repeats) > 1
    table = Table(box=None, pad_edge=False, show_header=True)
    for name in ("metric", "value", "unit", *(("95 % interval", "n") if several else ())):
        table.add_column(name, justify="right" if name in ("value", "n") else "left")
    measures = _ROWS if measured.silent(load) else (*_ROWS, *_LATENCIES)
    for label, name, unit in measures:
        found = measured.estimates.get(f"{name}@{load}")
        if found is not None:
            shown = number if unit else _count
            interval = (f"{shown(found.low)} – {shown(found.high)}", str(found.n)) if several else ()
            table.add_row(label, shown(found.value), unit, *interval)
    return table


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else number(value)


def against_table(first: Measured, second: Measured, ratios: Mapping[str, Estimate]) -> Table:
    """Two servers side by side; × above 1: the first is better."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=f"{first.url} against {second.url} (× above 1 is better)")
    table.title_justify = "left"
    for name in ("metric", "load", "it", "the other", "gain", "95 % interval", "verdict"):
        table.add_column(name, justify="right" if name in ("it", "the other", "gain") else "left")
    ours, theirs = first.estimates, second.estimates
    for result in first.repeats[0]:
        for name in _COMPARED:
            key = f"{name}@{result.load.name}"
            if key in ours and key in theirs:
                ratio = ratios.get(key)
                shown = (gain(ratio.value), f"{gain(ratio.low)} – {gain(ratio.high)}", verdict(ratio)) if ratio else ()
                table.add_row(name, result.load.name, number(ours[key].value), number(theirs[key].value), *shown)
    return table


def verdict(ratio: Estimate) -> str:
    """Better or worse only where the interval excludes 1."""
    return "better" if ratio.low > 1 else "worse" if ratio.high < 1 else "no difference shown"


def failures(verdicts: Sequence[Verdict]) -> list[str]:
    """One sentence for every condition of `--fail-if` that came true."""
    lines = []
    for v in verdicts:
        if v.certainty.holds:
            several = f" (95 % interval {number(v.found.low)} – {number(v.found.high)})" if v.found.n > 1 else ""
            lines.append(f"failed: {v.key} is {number(v.found.value)}{several}, and --fail-if says {v.condition}")
    return lines
