"""Decides how a candidate is taken to production from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vibeserve.commands.options import CandidateArgument, JsonOption, RunOption, RunsDirOption


def deploy(
    candidate: CandidateArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; must be empty or not exist.")],
    image: Annotated[
        str | None, typer.Option("--image", help="Name of the container image (default: TARGET:CANDIDATE).")
    ] = None,
    run: RunOption = None,
    runs_dir: RunsDirOption = None,
    json: JsonOption = False,
) -> None:
    """Write a candidate with all that production needs: environment, container, manifests, evidence, checks.

    Example: vibeserve deploy c000012 my-server && cd my-server && docker compose up --build
    """
    from vibeserve.commands.output import console, print_json
    from vibeserve.deployment.folder import deploy as write
    from vibeserve.runs import find_candidate

    made = write(find_candidate(candidate, run, runs_dir), folder, image)
    screen = console(json)
    screen.print(f"{made.candidate} written to {made.folder}: {', '.join(made.files)}", soft_wrap=True)
    for warning in made.warnings:
        screen.print(f"warning: {warning}", soft_wrap=True)
    for step in ("./serve.sh", "./check.sh    # is it right?", "./bench.sh    # is it as fast here?", "less README.md"):
        screen.print(f"  cd {made.folder} && {step}", soft_wrap=True)
    if json:
        print_json(
            {
                "candidate": made.candidate,
                "commit": made.commit,
                "folder": made.folder,
                "image": made.image,
                "files": list(made.files),
                "warnings": list(made.warnings),
            }
        )
