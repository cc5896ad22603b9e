"""Decides how a run looks on a terminal: fronts with intervals and gains, slots, budgets, and what it ends with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from vibeserve.display import FrontRow, Meter, MetricView, Slot, Snapshot, rejected_text
from vibeserve.wording import clean, duration, gain, number

if TYPE_CHECKING:
    from vibeserve.growth import Generation

_BAR_WIDTH = 24
_HEADING = 12
_STEPS = 9


def generations_line(generations: Sequence[Generation]) -> str:
    """`hypervolume by generation: 7.17, 19.9, 30.5`; empty before the first child."""
    if not generations:
        return ""
    return "hypervolume by generation: " + ", ".join(number(g.hypervolume) for g in generations)


def meter_text(meter: Meter) -> str:
    """`children 12/25`, `wall time 2m 10s/5m 00s`."""

    def shown(amount: float | None) -> str:
        if amount is None:
            return "unknown"
        if meter.unit == "s":
            return duration(amount)
        return f"{number(amount) if amount != int(amount) else f'{int(amount):,}'}{meter.unit}"

    limit = "" if meter.limit is None else f"/{shown(meter.limit)}"
    return f"{meter.name} {shown(meter.used)}{limit}"


def bar(share: float | None) -> str:
    """A bar of blocks; empty for a budget without limit."""
    if share is None:
        return ""
    filled = round(share * _BAR_WIDTH)
    return "█" * filled + "░" * (_BAR_WIDTH - filled)


def front_table(
    rows: Sequence[FrontRow], *, above: Sequence[tuple[str, FrontRow]] = (), intervals: bool = True
) -> Table:
    """One row per candidate; `above` are labelled rows to compare with (the seed, the baselines), set off by a rule."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("id", no_wrap=True)
    table.add_column("made by", overflow="fold", max_width=44)
    sample = next((row for row in [*rows, *(r for _, r in above)] if row.metrics), None)
    for metric in sample.metrics if sample else ():
        table.add_column(_heading(metric), justify="right", overflow="fold")
    for i, (label, row) in enumerate(above):
        table.add_row(
            row.id, label, *(_cell(m, intervals) for m in row.metrics), style="dim", end_section=i == len(above) - 1
        )
    for row in rows:
        table.add_row(row.id, _made_by(row), *(_cell(m, intervals) for m in row.metrics))
    return table


def _heading(metric: MetricView) -> str:
    """Name, unit and which way is better, no wider than what stands below: `output_`, `throughput`, `tok/s ↑`."""
    cuts = [i + 1 for i, letter in enumerate(metric.name) if letter == "_"]
    cut = min(cuts, key=lambda i: abs(2 * i - len(metric.name)), default=0) if len(metric.name) > _HEADING else 0
    arrow = "↑" if metric.direction == "max" else "↓"
    return "\n".join(part for part in (metric.name[:cut], metric.name[cut:], f"{metric.unit or ''} {arrow}") if part)


def _made_by(row: FrontRow) -> str:
    if row.operator == row.label or not (row.label or row.parents):
        return row.operator
    return clean(f"{row.operator}: {row.label}" if row.label else f"{row.operator} of {' + '.join(row.parents)}")


def _cell(metric: MetricView, intervals: bool) -> Text:
    text = Text(number(metric.value), style="bold")
    if metric.gain is not None:
        text.append(f"  {gain(metric.gain)}", style="green" if metric.gain >= 1 else "yellow")
    if intervals:
        text.append(f"\n{number(metric.low)}–{number(metric.high)} n={metric.n}", style="not bold dim")
    return text


def slots_table(slots: Sequence[Slot]) -> Table:
    """What is in flight."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("child", "operator", "what", "parents", "stage"):
        table.add_column(name, no_wrap=name != "what", overflow="fold")
    table.add_column("elapsed", justify="right", no_wrap=True)
    for slot in slots:
        parents = " + ".join(slot.parents)
        table.add_row(slot.key, slot.operator, slot.label, parents, slot.stage, duration(slot.elapsed_s))
    return table


def meters_grid(meters: Sequence[Meter]) -> Table:
    """A bar for every budget that has a limit, and a number for every other one that is in use."""
    grid = Table.grid(padding=(0, 2))
    for meter in meters:
        if meter.limit is not None or meter.used:
            grid.add_row(Text(bar(meter.share), style="cyan"), meter_text(meter))
    return grid


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """A growing quantity as blocks, at most `width` of them: the last value of each share of the series."""
    if not values or max(values) <= 0:
        return ""
    picked = (
        [values[math.ceil((i + 1) * len(values) / width) - 1] for i in range(width)] if len(values) > width else values
    )
    top = max(values)
    return "".join("▁▂▃▄▅▆▇█"[min(7, int(max(0.0, value) / top * 7.999))] for value in picked)


def fitting_view(snapshot: Snapshot, screen: Console) -> RenderableType:
    """The live view with as many members of the front as the terminal has lines for."""
    members = min(len(snapshot.front), screen.height)
    view = live_view(snapshot, members)
    while members > 1 and len(screen.render_lines(view, pad=False)) >= screen.height:
        members -= 1
        view = live_view(snapshot, members)
    return view


def live_view(snapshot: Snapshot, members: int | None = None) -> RenderableType:
    """Slots, budgets, front, its growth and its making, and what was rejected where, at one moment.

    `members` of the front are shown; None: all of them, and how the first one came to be.
    """
    rows = snapshot.front if members is None else snapshot.front[:members]
    head = Text(f"{snapshot.run}  {duration(snapshot.elapsed_s)}", style="bold")
    if snapshot.draining:
        head.append("  draining: waits for children in flight; Ctrl-C again stops at once", style="yellow")
    parts: list[RenderableType] = [head, meters_grid(snapshot.meters), Text(_counts(snapshot))]
    if line := sparkline(snapshot.history):
        parts.append(Text.assemble("hypervolume by child ", (line, "cyan")))
    if snapshot.rejected:
        parts.append(Text(f"rejected at {rejected_text(snapshot.rejected)}", style="dim"))
    if snapshot.slots:
        parts += [Text(), slots_table(snapshot.slots)]
    if rows:
        parts += [Text(), Text("Front so far (measured)"), front_table(rows, intervals=False)]
    if len(rows) < len(snapshot.front):
        parts.append(Text(f"… and {len(snapshot.front) - len(rows)} more: vibeserve front", style="dim"))
    elif len(snapshot.path) > 1:
        parts.append(Text(clean(f"{snapshot.front[0].id} is {' → '.join(_short(snapshot.path))}"), style="dim"))
    parts += [Text(event, style="dim", overflow="ellipsis", no_wrap=True) for event in snapshot.events[-3:]]
    return Group(*parts)


def _short(path: Sequence[str]) -> Sequence[str]:
    """Its beginning and its end."""
    return path if len(path) <= _STEPS else (*path[:2], "…", *path[3 - _STEPS :])


def _counts(snapshot: Snapshot) -> str:
    parts = [f"{name} {count}" for name, count in snapshot.counts.items()]
    if snapshot.hypervolume is not None:
        parts.append(f"hypervolume {snapshot.hypervolume:.2f}")
    if snapshot.eta_s is not None:
        parts.append(f"about {duration(snapshot.eta_s)} left")
    return "  ".join(parts)
