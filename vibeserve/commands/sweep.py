"""Decides how a grid of settings is run by one command, and how it is taken up again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vibeserve.commands.options import REDUCED_ISOLATION, JsonOption, ReducedIsolationOption, RunsDirOption

if TYPE_CHECKING:
    from rich.console import Console

    from vibeserve.sweep import Sweep


def sweep(
    target: Annotated[Path | None, typer.Argument(metavar="[TARGET]", help="Folder of the target.")] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", metavar="KEY=V1,V2,…", help="Values to try; one value is the same for all runs."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, metavar="N", help="Runs per setting, each its seed.")] = 1,
    first_seed: Annotated[int, typer.Option("--first-seed", min=0, help="The others follow it.")] = 1,
    preset: Annotated[str | None, typer.Option("--preset", help="A prepared config, e.g. quickstart.")] = None,
    config: Annotated[list[Path] | None, typer.Option("--config", "-c", help="TOML file; several are layered.")] = None,
    runs_dir: RunsDirOption = None,
    name: Annotated[str | None, typer.Option("--name", help="Last part of the sweep folder's name.")] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="SWEEP", help="Go on with this sweep: its folder or name.")
    ] = None,
    allow_reduced_isolation: ReducedIsolationOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs; run nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")] = False,
    json: JsonOption = False,
) -> None:
    """Run every combination of settings with every seed, one after the other, for `vibeserve compare SWEEP`.

    A run that fails is noted and passed over. Ctrl-C drains the run in progress; --resume goes on from there.

    Example: vibeserve sweep my-target -s search.frontier_bias=0.3,0.5,0.7,0.9 --seeds 3
    """
    from vibeserve.commands.output import INTERRUPTED, console, print_json
    from vibeserve.display import SilentDisplay, open_display
    from vibeserve.sweeping import conduct

    screen = console(json)
    if resume is not None:
        given = {"TARGET": target, "-s": override, "--preset": preset, "--config": config, "--name": name}
        folder = _existing(resume, runs_dir, [option for option, value in given.items() if value])
    else:
        overrides = (*(override or ()), *([REDUCED_ISOLATION] if allow_reduced_isolation else []))
        folder_or_none = _begin(
            _planned(target, preset, config or [], overrides, range(first_seed, first_seed + seeds)),
            runs_dir,
            name,
            screen if dry_run else None,
        )
        if folder_or_none is None:
            return
        folder = folder_or_none
    done = conduct(
        folder,
        lambda: SilentDisplay() if quiet else open_display(sys.stderr if json else sys.stdout),
        lambda text: screen.print(text, style="bold", soft_wrap=True),
    )
    _show(screen, folder, done.sweep)
    if json:
        print_json(_json(folder, done.sweep))
    if done.interrupted:
        print(f"interrupted; continue with: vibeserve sweep --resume {folder}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    if done.failed:
        raise typer.Exit(1)


def _planned(
    target: Path | None, preset: str | None, files: list[Path], overrides: tuple[str, ...], seeds: range
) -> Sweep:
    from population.errors import UsageError
    from vibeserve.sweep import plan

    if target is None and preset is None:
        raise UsageError("expected a TARGET folder, a --preset, or --resume SWEEP")
    return plan(target, preset, files, overrides, seeds)


def _begin(planned: Sweep, runs_dir: Path | None, name: str | None, dry: Console | None) -> Path | None:
    """The folder of a new sweep; None after a dry run."""
    from vibeserve.runs import default_runs_dir
    from vibeserve.sweep_folder import create_folder, write_sweep
    from vibeserve.sweeping import check

    config = check(planned)
    if dry is not None:
        dry.print(f"{len(planned.runs)} runs of {config.target}, one after the other:", soft_wrap=True)
        for run in planned.runs:
            options = " ".join(f"-s {override}" for override in planned.overrides(run))
            dry.print(f"  {run.name}: seed {run.seed} {options}", soft_wrap=True)
        return None
    assert config.target is not None
    folder = create_folder(runs_dir or default_runs_dir(), name or config.target.name)
    write_sweep(folder, planned)
    return folder


def _existing(text: str, runs_dir: Path | None, others: list[str]) -> Path:
    from population.errors import UsageError
    from vibeserve.sweep_folder import find_sweep

    if others:
        raise UsageError(f"--resume takes everything from the sweep's file; leave {', '.join(others)}")
    folder = find_sweep(text, runs_dir)
    if folder is None:
        raise UsageError(f"--resume {text}: no such sweep, or several fit; give the folder that holds its sweep.json")
    return folder


def _show(screen: Console, folder: Path, done: Sweep) -> None:
    from rich.table import Table

    from vibeserve.sweep import Status, unfinished

    table = Table("run", "setting", "seed", "status", box=None, pad_edge=False)
    for run in done.runs:
        setting = ", ".join(f"{key}={value}" for key, value in run.setting.items())
        table.add_row(run.name, setting, str(run.seed), str(run.status))
    screen.print(table)
    left = list(unfinished(done))
    for text in left:
        screen.print(text, style="yellow", soft_wrap=True)
    if left:
        screen.print(f"vibeserve sweep --resume {folder}", style="dim", soft_wrap=True)
    if any(run.status is Status.FINISHED for run in done.runs):
        screen.print(f"vibeserve compare {folder}", style="dim", soft_wrap=True)


def _json(folder: Path, done: Sweep) -> dict[str, Any]:
    from dataclasses import asdict

    from vibeserve.sweep_folder import run_dir_of

    runs = [{**asdict(run), "run_dir": run_dir_of(folder, run)} for run in done.runs]
    return {"sweep": folder.name, "folder": folder, "varied": done.varied, "runs": runs}
