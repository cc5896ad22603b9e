"""Decides how numbers and tables look to a person: fronts with intervals and gains, slots, budgets, durations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from vibeserve.display import FrontRow, Meter, MetricView, Slot, Snapshot

if TYPE_CHECKING:
    from vibeserve.report import Generation, Summary

SEED_ID = "c000000"
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


def isolation_text(tier: str, gaps: Sequence[str]) -> str:
    """`tier B; it left open: …`."""
    return f"tier {tier}" + (f"; it left open: {'; '.join(gaps)}" if gaps else "")


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
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("id", no_wrap=True)
    table.add_column("made by", overflow="fold", max_width=30)
    sample = next((row for row in [*rows, *(r for _, r in above)] if row.metrics), None)
    for metric in sample.metrics if sample else ():
        arrow = "↑" if metric.direction == "max" else "↓"
        table.add_column(f"{metric.name}\n{metric.unit or ''} {arrow}", justify="right", overflow="fold")
    for i, (label, row) in enumerate(above):
        table.add_row(
            row.id, label, *(_cell(m, intervals) for m in row.metrics), style="dim", end_section=i == len(above) - 1
        )
    for row in rows:
        table.add_row(row.id, _made_by(row), *(_cell(m, intervals) for m in row.metrics))
    return table


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
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
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
    parts: list[RenderableType] = [head, meters_grid(snapshot.meters), Text(counts)]
    if snapshot.slots:
        parts.append(slots_table(snapshot.slots))
    if snapshot.front:
        parts += [Text("Front so far (measured)"), front_table(snapshot.front, intervals=False)]
    parts += [Text(event, style="dim", overflow="ellipsis", no_wrap=True) for event in snapshot.events[-3:]]
    return Group(*parts)


def clean(text: str) -> str:
    """Text that a candidate may have written, without what could steer a terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else "�" for c in text)


def print_summary(screen: Console, summary: Summary) -> None:
    """What `run` ends with and `front` shows: the front beside the seed and the baselines, and what to do next."""
    screen.print(_headline(summary), soft_wrap=True)
    if summary.seed is None:
        screen.print("No candidate was scored, so there is no front yet.", style="yellow")
        return
    screen.print("\nFront, *measured* during the search: 95 % intervals, × is the gain over the seed", soft_wrap=True)
    screen.print(_front_of(summary))
    if summary.held_out or summary.baselines:
        screen.print("The same, *measured* afresh on the held-out trace, which is never used to select", soft_wrap=True)
        screen.print(_held_out_of(summary))
    for line in _isolation_lines(summary):
        screen.print(line, soft_wrap=True)
    if any(row.id == SEED_ID for row in summary.front):
        screen.print("The seed is on the front too: nothing measured so far is better in everything, given the noise.")
    screen.print(f"Hypervolume {summary.hypervolume:.3f} (log space, reference point at the seed)", soft_wrap=True)
    for line in _next_steps(summary):
        screen.print(line, style="dim", soft_wrap=True)


def _headline(summary: Summary) -> str:
    counts = ", ".join(f"{count} at {stage}" for stage, count in sorted(summary.rejected.items()))
    parts = [
        f"{summary.state}" + (f" ({summary.stopped_because})" if summary.stopped_because else ""),
        f"after {duration(summary.elapsed_s)}: {summary.children} children, {summary.scored} scored",
    ]
    parts += [f"rejected {counts}"] if counts else []
    parts += [f"{summary.in_flight} in flight"] if summary.in_flight else []
    parts += [f"machine faults: {summary.errors}"] if summary.errors else []
    return f"{summary.run} {', '.join(parts)}"


def _front_of(summary: Summary) -> Table:
    above = [("the seed", summary.seed)] if summary.seed else []
    return front_table([row for row in summary.front if row.id != SEED_ID], above=above)


def _held_out_of(summary: Summary) -> Table:
    """Everything measured on the held-out trace, so that front and baselines stand side by side."""
    above = [("the seed", summary.held_out[SEED_ID])] if SEED_ID in summary.held_out else []
    above += [(f"baseline {name}", replace(row, id="")) for name, row in summary.baselines.items()]
    made = {row.id: row for row in summary.front}
    rows = [
        replace(row, operator=made[name].operator, label=made[name].label) if name in made else row
        for name, row in summary.held_out.items()
        if name != SEED_ID
    ]
    return front_table(rows, above=above)


def _isolation_lines(summary: Summary) -> list[str]:
    """One line for all of the front, or one per tier where the run went through several."""
    tiers = sorted({row.tier for row in summary.front})
    lines = []
    for tier in tiers:
        rows = [row for row in summary.front if row.tier == tier]
        who = "" if len(tiers) == 1 else f" ({', '.join(row.id for row in rows)})"
        gaps = tuple(dict.fromkeys(gap for row in rows for gap in row.gaps))
        lines.append(f"Measured under isolation {isolation_text(tier, gaps)}{who}")
    return lines


def _next_steps(summary: Summary) -> list[str]:
    run, best = _short(summary.run_dir), next((r.id for r in summary.front if r.id != SEED_ID), SEED_ID)
    steps = [
        (f"vibeserve front {run}", "this again"),
        (f"vibeserve show {best} --run {run}", "how a member came to be"),
        (f"vibeserve diff {best} seed --run {run}", "what it changed"),
        (f"vibeserve export {best} my-server --run {run}", "a folder that runs by itself"),
        ("vibeserve bench http://127.0.0.1:8000", "measure any server"),
        (f"vibeserve verify {best} --against seed --run {run}", "a claim: fresh, paired"),
        (f"vibeserve resume {run} -s budget.children={summary.children + 25}", "search on"),
    ]
    width = max(len(command) for command, _ in steps)
    lines = [f"  {command:<{width}}  # {what}" for command, what in steps]
    return [f"Commits: git -C {run}/population.git show refs/candidates/{best}", "Next:", *lines]


def _short(path: Path) -> Path:
    """Relative to the working directory where it is below it."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path
