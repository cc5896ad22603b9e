"""Decides how arguments that many commands share are spelled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="A run: its folder, name or a unique part of it. Latest if omitted."),
]
RunOption = Annotated[str | None, typer.Option("--run", metavar="RUN", help="The run to look in. Latest if omitted.")]
CandidateArgument = Annotated[
    str, typer.Argument(metavar="CANDIDATE", help="c000012, 12, or RUN:c000012; `seed` is c000000.")
]
RunsDirOption = Annotated[
    Path | None,
    typer.Option("--runs-dir", metavar="DIR", help="Folder that holds the run folders (default: runs)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout; the rest goes to stderr.")]
ReducedIsolationOption = Annotated[
    bool,
    typer.Option(
        "--allow-reduced-isolation",
        help="Where bubblewrap does not work, isolate by Landlock and seccomp (tier B) instead of refusing.",
    ),
]
REDUCED_ISOLATION = "evaluation.allow_reduced_isolation=true"
"""The same as an override."""
TargetArgument = Annotated[Path, typer.Argument(metavar="TARGET", help="Folder of the target.")]
OverrideOption = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", metavar="KEY=VALUE", help="Set a config key, e.g. -s search.frontier_bias=0.9."),
]
