"""Decides how a front is read, and how a member leaves the run as a folder that runs by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vibeserve.commands.options import JsonOption, RunArgument, RunOption, RunsDirOption


def front(run: RunArgument = None, runs_dir: RunsDirOption = None, json: JsonOption = False) -> None:
    """The front of a run with intervals and gains over the seed; works while the run goes on."""
    from vibeserve.commands.output import console, print_json
    from vibeserve.runs import find_run
    from vibeserve.summary import summarise, to_json
    from vibeserve.summary_view import print_summary

    summary = summarise(find_run(run, runs_dir))
    print_summary(console(json), summary)
    if json:
        print_json(to_json(summary))


def export(
    candidate: Annotated[
        str, typer.Argument(metavar="CANDIDATE|FILE", help="c000012, 12, RUN:c000012; or table.csv, .jsonl, .parquet.")
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Folder to write; must be empty or not exist.")
    ] = None,
    run: RunOption = None,
    runs_dir: RunsDirOption = None,
    json: JsonOption = False,
) -> None:
    """Write a candidate's server to a folder, or all candidates with their metrics to a table.

    Examples: vibeserve export c000012 my-server && cd my-server && ./serve.sh;
    vibeserve export candidates.csv
    """
    from population.errors import UsageError
    from vibeserve.commands.output import console, print_json
    from vibeserve.export import export_candidate
    from vibeserve.runs import find_candidate
    from vibeserve.table_files import is_table

    if folder is None:
        if not is_table(Path(candidate)):
            raise UsageError(f"expected a folder for {candidate}, or a table such as candidates.csv in place of it")
        return _table(Path(candidate), run, runs_dir, json)
    exported = export_candidate(find_candidate(candidate, run, runs_dir), folder)
    screen = console(json)
    screen.print(f"{exported.candidate} written to {exported.folder}; start it with", soft_wrap=True)
    screen.print(f"  {exported.command}", soft_wrap=True)
    screen.print(f"then it answers at {exported.url}, for example to `vibeserve bench {exported.url}`", soft_wrap=True)
    if json:
        print_json(
            {
                "candidate": exported.candidate,
                "commit": exported.commit,
                "folder": exported.folder,
                "command": exported.command,
                "url": exported.url,
            }
        )


def _table(path: Path, run: str | None, runs_dir: Path | None, json: bool) -> None:
    from vibeserve.commands.output import console, print_json
    from vibeserve.results import Run
    from vibeserve.table_files import write_table

    found = Run(run, runs_dir)
    count = write_table(found, path)
    console(json).print(f"{count} candidates of {found.name} written to {path}", soft_wrap=True)
    if json:
        print_json({"run": found.name, "file": path, "rows": count})
