"""Decides how runs are listed and followed from another process: everything comes from their ledgers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vibeserve.commands.options import JsonOption, RunArgument, RunsDirOption

_POLL_S = 0.5


def ls(runs_dir: RunsDirOption = None, json: JsonOption = False) -> None:
    """List the runs, oldest first."""
    from rich.table import Table

    from population.errors import VibeServeError
    from vibeserve.commands.output import console, print_json
    from vibeserve.listing import brief
    from vibeserve.runs import list_runs
    from vibeserve.tables import duration

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
    from vibeserve.layers import load_run_config
    from vibeserve.progress import follow_events
    from vibeserve.report import generations, read_run, to_json
    from vibeserve.runs import find_run
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

    from vibeserve.commands.output import console, print_json
    from vibeserve.display import SilentDisplay, open_display
    from vibeserve.lifecycle import RunState, run_state
    from vibeserve.progress import event_json, event_text, follow_events
    from vibeserve.report import read_run
    from vibeserve.runs import find_run
    from vibeserve.tables import print_summary

    run_dir, seen = find_run(run, runs_dir), 0
    display = SilentDisplay() if json else open_display(sys.stdout)
    try:
        while True:
            events, state = read_run(run_dir)
            for event in events[seen:]:
                if json:
                    print_json(event_json(event))
                elif text := event_text(event):
                    display.event(text)
            seen = len(events)
            life = run_state(events)
            summary, snapshot = follow_events(run_dir, events, state)
            display.update(snapshot)
            if once or life not in (RunState.RUNNING, RunState.REMOTE):
                break
            time.sleep(_POLL_S)
    finally:
        display.close()
    print_summary(console(json), summary)
