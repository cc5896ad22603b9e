"""Decides how runs are listed and followed from another process: everything comes from their ledgers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vibeserve.commands.options import JsonOption, RunArgument, RunsDirOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from population.events import Event
    from vibeserve.display import Display
    from vibeserve.follower import Followed
    from vibeserve.summary import Summary

_POLL_S = 0.5
_BACKLOG = 20


def ls(runs_dir: RunsDirOption = None, json: JsonOption = False) -> None:
    """List the runs, oldest first."""
    from rich.table import Table

    from population.errors import VibeServeError
    from vibeserve.commands.output import console, print_json
    from vibeserve.listing import brief
    from vibeserve.runs import list_runs
    from vibeserve.wording import duration

    found: list[tuple[Path, dict[str, Any] | VibeServeError]] = []
    for run_dir in list_runs(runs_dir):
        try:
            found.append((run_dir, brief(run_dir)))
        except VibeServeError as error:
            found.append((run_dir, error))  # one damaged run must not hide the others
    table = Table("run", "state", "children", "scored", "front", "hypervolume", "time", box=None, pad_edge=False)
    for run_dir, summary in found:
        if isinstance(summary, VibeServeError):
            table.add_row(run_dir.name, f"unreadable: {summary}")
            continue
        volume = "" if summary["hypervolume"] is None else f"{summary['hypervolume']:.2f}"
        counts = (str(count) for count in (summary["children"], summary["scored"], len(summary["front"])))
        table.add_row(run_dir.name, summary["state"], *counts, volume, duration(summary["elapsed_s"]))
    console(json).print(table if found else "no runs yet; try `vibeserve run --preset quickstart`")
    if json:
        unreadable = [{"run": r.name, "error": str(s)} for r, s in found if isinstance(s, VibeServeError)]
        print_json({"runs": [s for _, s in found if isinstance(s, dict)], "unreadable": unreadable})


def index(
    run: RunArgument = None,
    runs_dir: RunsDirOption = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make it again even if it fits the ledger.")] = False,
    json: JsonOption = False,
) -> None:
    """A run as an SQLite file on this machine, made from its ledger: `sqlite3 $(vibeserve index) .schema`."""
    from vibeserve.commands.output import print_json
    from vibeserve.listing import open_index
    from vibeserve.runs import find_run

    with open_index(find_run(run, runs_dir), rebuild) as made:
        names = [name for (name,) in made.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        tables = {name: made.rows(f"SELECT count(*) FROM {name}")[0][0] for name in names}
        if json:
            return print_json({"index": str(made.path), "tables": tables})
        print(made.path)


def status(run: RunArgument = None, runs_dir: RunsDirOption = None, json: JsonOption = False) -> None:
    """One screen about a run: what is in flight, budgets, front, progress by generation."""
    from dataclasses import asdict

    from vibeserve.commands.output import console, print_json
    from vibeserve.growth import generations
    from vibeserve.layers import load_run_config
    from vibeserve.progress import follow_events
    from vibeserve.runs import find_run, read_run
    from vibeserve.summary import to_json
    from vibeserve.tables import generations_line, live_view

    run_dir = find_run(run, runs_dir)
    events, state = read_run(run_dir)
    summary, snapshot = follow_events(run_dir, events, state)
    progress = generations(state.archive, load_run_config(run_dir).search.generation_size)
    screen = console(json)
    screen.print(f"{summary.state}" + (f" ({summary.stopped_because})" if summary.stopped_because else ""))
    screen.print(live_view(snapshot))
    screen.print(generations_line(progress), soft_wrap=True)
    if json:
        in_flight = [{"key": s.key, "operator": s.operator, "stage": s.stage} for s in snapshot.slots]
        by_generation = [asdict(generation) for generation in progress]
        budgets = [{"name": m.name, "used": m.used, "limit": m.limit} for m in snapshot.meters]
        print_json({**to_json(summary), "in_flight": in_flight, "budgets": budgets, "generations": by_generation})


def watch(
    run: RunArgument = None,
    runs_dir: RunsDirOption = None,
    once: Annotated[bool, typer.Option("--once", help="Show what has happened so far and leave.")] = False,
    json: JsonOption = False,
) -> None:
    """Follow a run until it ends, from any process that sees its folder; Ctrl-C ends the watching, not the run.

    With --json, every event of the ledger is one line.
    """
    import sys

    from vibeserve.commands.output import INTERRUPTED, console
    from vibeserve.display import SilentDisplay, open_display
    from vibeserve.follower import Followed
    from vibeserve.runs import find_run
    from vibeserve.summary_view import print_summary

    followed = Followed(find_run(run, runs_dir))
    display = SilentDisplay() if json else open_display(sys.stdout)
    try:
        summary = _follow(followed, display, once, json)
    except KeyboardInterrupt:
        display.close()
        console(json).print("no longer watched; the run goes on", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        display.close()
    print_summary(console(json), summary)


def _follow(followed: Followed, display: Display, once: bool, json: bool) -> Summary:
    """Show what happens until the run has ended; what it amounts to then."""
    from population.errors import LedgerError
    from vibeserve.lifecycle import RunState
    from vibeserve.progress import aged, follow_events

    told, revision, looked = 0, -1, 0.0
    while True:
        now = followed.refresh()
        if followed.problem is not None:
            raise LedgerError(followed.problem)
        _tell(followed.events[told:], display, json, first=told == 0)
        told = len(followed.events)
        if now != revision:  # a front of thousands is not computed again for nothing
            revision = now
            summary, snapshot = follow_events(followed.run_dir, followed.events, followed.state)
        else:
            snapshot = aged(snapshot, time.monotonic() - looked)
        looked = time.monotonic()
        display.update(snapshot)
        if once or summary.state not in (RunState.RUNNING, RunState.REMOTE):
            return summary
        time.sleep(_POLL_S)


def _tell(events: Sequence[Event], display: Display, json: bool, first: bool) -> None:
    """One line per event; of what happened before the watching a terminal gets the last few."""
    import sys

    from vibeserve.commands.output import print_json
    from vibeserve.progress import event_json, event_text

    if json:
        for event in events:
            print_json(event_json(event))
        return
    lines = [text for text in map(event_text, events) if text]
    if first and sys.stdout.isatty() and len(lines) > _BACKLOG:
        display.event(f"… {len(lines) - _BACKLOG} earlier events: vibeserve watch | less")
        lines = lines[-_BACKLOG:]
    for line in lines:
        display.event(line)
