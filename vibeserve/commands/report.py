"""Decides where the report of a run is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vibeserve.commands.options import JsonOption, RunArgument, RunsDirOption


def report(
    run: RunArgument = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to (default: the run's own).")
    ] = None,
    runs_dir: RunsDirOption = None,
    json: JsonOption = False,
) -> None:
    """Write report.html, one file that needs no network, and report.md: asked, found, learned, cost, limits.

    Works while the run goes on. Example: vibeserve report && xdg-open runs/RUN/report.html
    """
    from population.errors import InfrastructureError
    from vibeserve.commands.output import console, print_json
    from vibeserve.narrative import markdown, page
    from vibeserve.narrative.material import gather
    from vibeserve.narrative.story import tell
    from vibeserve.runs import find_run

    run_dir = find_run(run, runs_dir)
    folder = output or run_dir
    document = tell(gather(run_dir))
    written = {"html": folder / "report.html", "markdown": folder / "report.md"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written["html"].write_text(page.render(document), encoding="utf-8")
        written["markdown"].write_text(markdown.render(document), encoding="utf-8")
    except OSError as error:
        raise InfrastructureError(f"{folder}: cannot be written: {error.strerror or error}") from error
    for path in written.values():
        console(json).print(str(path), soft_wrap=True)
    if json:
        print_json({"run": run_dir.name, **written})
