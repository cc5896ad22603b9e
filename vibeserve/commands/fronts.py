"""Decides how a front is read, and how a member leaves the run as a folder that runs by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vibeserve.commands.options import CandidateArgument, JsonOption, RunArgument, RunOption, RunsDirOption


def front(run: RunArgument = None, runs_dir: RunsDirOption = None, json: JsonOption = False) -> None:
    """The front of a run with intervals and gains over the seed; works while the run goes on."""
    from vibeserve.commands.output import console, print_json
    from vibeserve.report import summarise, to_json
    from vibeserve.runs import find_run
    from vibeserve.tables import print_summary

    summary = summarise(find_run(run, runs_dir))
    print_summary(console(json), summary)
    if json:
        print_json(to_json(summary))


def export(
    candidate: CandidateArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; must be empty or not exist.")],
    run: RunOption = None,
    runs_dir: RunsDirOption = None,
    json: JsonOption = False,
) -> None:
    """Write a candidate's server to a folder, with how to start it and what it measured.

    Example: vibeserve export c000012 my-server && cd my-server && ./serve.sh
    """
    from vibeserve.commands.output import console, print_json
    from vibeserve.export import export_candidate
    from vibeserve.runs import find_candidate

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
