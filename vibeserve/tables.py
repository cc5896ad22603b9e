"""Decides how numbers and tables look to a person: fronts with intervals and gains, slots, budgets, durations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vibeserve.display import FrontRow, Meter, MetricView, Slot, Snapshot

_BAR_WIDTH = 24


def number(value: float) -> str:
    """Three significant digits or all digits of a large whole part: 0.0123, 4.57, 812, 12,345."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞" if value < 0 else "?"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """`4.2s`, `3m 05s`, `2h 07m`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


def gain(ratio: float | None) -> str:
    """`23.1×`, better than the seed above 1; empty if there is no seed to compare with."""
    if ratio is None or math.isnan(ratio):
        return ""
    return f"{number(ratio) if ratio >= 10 or not math.isfinite(ratio) else f'{ratio:.2f}'}×"


def meter_text(meter: Meter) -> str:
    """`children 12/25`, `wall time 2m 10s/5m 00s`, `llm tokens 9,310`."""

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
    rows: Sequence[FrontRow], *, title: str, above: Sequence[tuple[str, FrontRow]] = (), intervals: bool = True
) -> Table:
    """One row per candidate; `above` are labelled rows to compare with (the seed, the baselines), set off by a rule."""
    table = Table(title=title, title_justify="left", title_style="bold", expand=False)
    table.add_column("id", no_wrap=True)
    table.add_column("made by", overflow="fold")
    sample = next((row for row in [*rows, *(r for _, r in above)] if row.metrics), None)
    for metric in sample.metrics if sample else ():
        arrow = "↑" if metric.direction == "max" else "↓"
        unit = f" ({metric.unit})" if metric.unit and not metric.name.endswith(f"_{metric.unit}") else ""
        table.add_column(f"{metric.name}{unit} {arrow}", justify="right", overflow="fold")
    for i, (label, row) in enumerate(above):
        table.add_row(
            row.id, label, *(_cell(m, intervals) for m in row.metrics), style="dim", end_section=i == len(above) - 1
        )
    for row in rows:
        table.add_row(row.id, _made_by(row), *(_cell(m, intervals) for m in row.metrics))
    return table


def _made_by(row: FrontRow) -> str:
    label = f" {row.label}" if row.label else ""
    parents = f" of {' + '.join(row.parents)}" if row.parents else ""
    return f"{row.operator}{label}{parents}"


def _cell(metric: MetricView, intervals: bool) -> Text:
    text = Text(number(metric.value), style="bold")
    if metric.gain is not None:
        text.append(f"  {gain(metric.gain)}", style="green" if metric.gain >= 1 else "yellow")
    if intervals:
        text.append(f"\n{number(metric.low)} to {number(metric.high)}, n={metric.n}", style="not bold dim")
    return text


def slots_table(slots: Sequence[Slot]) -> Table:
    """What is in flight."""
    table = Table(expand=False)
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


def live_view(snapshot: Snapshot) -> RenderableType:
    """Slots, budgets, front and hypervolume of one moment."""
    head = Text(f"{snapshot.run}  {duration(snapshot.elapsed_s)}", style="bold")
    if snapshot.draining:
        head.append("  draining: waits for children in flight; Ctrl-C again stops at once", style="yellow")
    counts = "  ".join(f"{name} {count}" for name, count in snapshot.counts.items())
    if snapshot.hypervolume is not None:
        counts += f"  hypervolume {snapshot.hypervolume:.2f}"
    if snapshot.eta_s is not None:
        counts += f"  about {duration(snapshot.eta_s)} left"
    parts: list[RenderableType] = [head, meters_grid(snapshot.meters), Text(counts), slots_table(snapshot.slots)]
    if snapshot.front:
        parts.append(front_table(snapshot.front, title="Front so far (measured)", intervals=False))
    parts += [Text(event, style="dim", overflow="ellipsis", no_wrap=True) for event in snapshot.events[-3:]]
    return Group(*parts)
