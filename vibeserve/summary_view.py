"""Decides what a run ends with on a terminal: its front beside seed and baselines, and what to do next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vibeserve.front_rows import SEED
from vibeserve.lifecycle import RunState
from vibeserve.summary import Summary
from vibeserve.tables import front_table
from vibeserve.wording import duration, isolation_text


def print_summary(screen: Console, summary: Summary) -> None:
    """What `run` ends with and `front` shows: the front beside the seed and the baselines, and what to do next."""
    screen.print(_headline(summary), soft_wrap=True)
    if summary.seed is None:
        screen.print("No candidate was scored, so there is no front yet.", style="yellow")
        return
    screen.print("\nFront, *measured* during the search: 95 % intervals, × is the gain over the seed\n", soft_wrap=True)
    screen.print(_front_of(summary))
    if summary.held_out or summary.baselines:
        head = "The same, *measured* afresh on the held-out trace, which is never used to select"
        screen.print(f"\n{head}\n", soft_wrap=True)
        screen.print(_held_out_of(summary))
    screen.print()
    for line in _isolation_lines(summary):
        screen.print(line, soft_wrap=True)
    if any(row.id == SEED for row in summary.front):
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
    return front_table([row for row in summary.front if row.id != SEED], above=above)


def _held_out_of(summary: Summary) -> Table:
    """Everything measured on the held-out trace, so that front and baselines stand side by side."""
    above = [("the seed", summary.held_out[SEED])] if SEED in summary.held_out else []
    above += [(f"baseline {name}", replace(row, id="")) for name, row in summary.baselines.items()]
    made = {row.id: row for row in summary.front}
    rows = [
        replace(summary.held_out[name], operator=row.operator, label=row.label)
        for name, row in made.items()
        if name in summary.held_out and name != SEED
    ]
    rows += [row for name, row in summary.held_out.items() if name not in made and name != SEED]
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
    run, best = _short(summary.run_dir), next((r.id for r in summary.front if r.id != SEED), SEED)
    steps = [
        (f"vibeserve front {run}", "this again"),
        (f"vibeserve dashboard {run} --open", "all of it in a browser"),
        (f"vibeserve report {run}", "what was asked, found and learned, as one page"),
        (f"vibeserve show {best} --run {run}", "how a member came to be"),
        (f"vibeserve diff {best} seed --run {run}", "what it changed"),
        (f"vibeserve verify {best} --against seed --run {run}", "a claim: fresh, paired"),
        (f"vibeserve deploy {best} my-server --run {run}", "all that production needs"),
    ]
    if summary.state in (RunState.RUNNING, RunState.REMOTE):
        steps.append((f"vibeserve watch {run}", "it still goes on"))
    else:
        steps.append((f"vibeserve resume {run} -s budget.children={summary.children + 25}", "search on"))
    width = max(len(command) for command, _ in steps)
    lines = [f"  {command:<{width}}  # {what}" for command, what in steps]
    return [f"Commits: git -C {run}/population.git show refs/candidates/{best}", "Next:", *lines]


def _short(path: Path) -> Path:
    """Relative to the working directory where it is below it."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path
