"""Decides what `doctor` checks: everything a run needs from this machine, each with its cure."""

from __future__ import annotations

import typer

from vibeserve.commands.options import JsonOption


def doctor(json: JsonOption = False) -> None:
    """Check this machine: Python, Ray, git, isolation, profiler, CPUs, GPUs, disk. Exit code 1 if a run cannot work."""
    from rich.table import Table

    from vibeserve.commands.output import console, print_json
    from vibeserve.machine import checks

    found = checks()
    table = Table("", "check", "found", "what to do", box=None, pad_edge=False)
    for check, needed in found:
        mark = "ok" if check.ok else "missing" if needed else "optional"
        table.add_row(mark, check.name, check.detail, "" if check.ok else check.cure)
    console(json).print(table)
    broken = [check.name for check, needed in found if needed and not check.ok]
    if json:
        rows = [
            {"name": c.name, "ok": c.ok, "needed": needed, "detail": c.detail, "cure": "" if c.ok else c.cure}
            for c, needed in found
        ]
        print_json({"ok": not broken, "checks": rows})
    if broken:
        raise typer.Exit(1)
