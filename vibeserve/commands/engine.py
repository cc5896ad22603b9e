"""Decides how a search is started, continued and stopped from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vibeserve.commands.options import (
    REDUCED_ISOLATION,
    JsonOption,
    OverrideOption,
    ReducedIsolationOption,
    RunArgument,
    RunsDirOption,
)

if TYPE_CHECKING:
    from vibeserve.config import Config
    from vibeserve.display import Display

_QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]


def run(
    target: Annotated[Path | None, typer.Argument(metavar="[TARGET]", help="Folder of the target.")] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="A prepared config, e.g. quickstart.")] = None,
    config: Annotated[list[Path] | None, typer.Option("--config", "-c", help="TOML file; several are layered.")] = None,
    override: OverrideOption = None,
    runs_dir: RunsDirOption = None,
    name: Annotated[str | None, typer.Option("--name", help="Last part of the run folder's name.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of every random choice.")] = None,
    barrier: Annotated[bool, typer.Option("--barrier", help="Classic generations instead of steady state.")] = False,
    allow_reduced_isolation: ReducedIsolationOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show config and resources; run nothing.")] = False,
    quiet: _QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Search for servers of TARGET until a budget ends it, and print the front.

    Ctrl-C waits for the children in flight; a second one stops at once. Both say how to resume.
    """
    from vibeserve.layers import Sources, load_config

    given = {"target": (target, "TARGET"), "runs_dir": (runs_dir, "--runs-dir"), "name": (name, "--name")}
    flags: dict[str, tuple[object, str]] = {k: v for k, v in given.items() if v[0] is not None}
    if seed is not None:
        flags["seed"] = (seed, "--seed")
    if barrier:
        flags["search.barrier"] = (True, "--barrier")
    if allow_reduced_isolation:
        flags["evaluation.allow_reduced_isolation"] = (True, "--allow-reduced-isolation")
    resolved = load_config(Sources(preset=preset, files=config or (), overrides=override or (), flags=flags))
    _require_target(resolved)
    if dry_run:
        from vibeserve.commands.dry_run import show_dry_run

        return show_dry_run(resolved, json)
    from vibeserve.wiring import run as start

    result = start(resolved, _display(json, quiet))
    _finish(result.run_dir, result.stopped_because, json)


def resume(
    run: RunArgument = None,
    override: OverrideOption = None,
    runs_dir: RunsDirOption = None,
    take_over: Annotated[bool, typer.Option("--take-over", help="Replace a driver that hangs or is lost.")] = False,
    allow_reduced_isolation: ReducedIsolationOption = False,
    quiet: _QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Continue a stopped or killed run, e.g. with a larger budget: `vibeserve resume -s budget.children=50`.

    Nothing that was acknowledged is lost; at most the stages in flight are repeated.
    """
    from vibeserve.runs import find_run
    from vibeserve.wiring import Parts
    from vibeserve.wiring import resume as restart

    parts = Parts(take_over=take_over)
    overrides = (*(override or ()), *([REDUCED_ISOLATION] if allow_reduced_isolation else []))
    result = restart(find_run(run, runs_dir), overrides, _display(json, quiet), parts)
    _finish(result.run_dir, result.stopped_because, json)


def stop(run: RunArgument = None, runs_dir: RunsDirOption = None, json: JsonOption = False) -> None:
    """Ask the driver of a run to drain: children in flight are finished, nothing new is started."""
    from vibeserve.commands.output import console, print_json
    from vibeserve.lifecycle import request_stop
    from vibeserve.runs import find_run

    run_dir = find_run(run, runs_dir)
    how = request_stop(run_dir)
    console(json).print(f"{run_dir.name}: {how}. Continue later with `vibeserve resume {run_dir}`", soft_wrap=True)
    if json:
        print_json({"run": run_dir.name, "stop": how})


def _require_target(config: Config) -> None:
    from population.errors import UsageError

    if config.target is None:
        raise UsageError("expected a TARGET folder or a --preset; try `vibeserve run --preset quickstart`")


def _display(as_json: bool, quiet: bool) -> Display:
    from vibeserve.display import SilentDisplay, open_display

    return SilentDisplay() if quiet else open_display(sys.stderr if as_json else sys.stdout)


def _finish(run_dir: Path, reason: str, as_json: bool) -> None:
    """The front as a table and, last on stdout, as one object; the exit code says whether there is one."""
    from population.errors import BudgetError
    from vibeserve.commands.output import INTERRUPTED, console, print_json
    from vibeserve.summary import summarise, to_json
    from vibeserve.summary_view import print_summary

    summary = summarise(run_dir)
    screen = console(as_json)
    print_summary(screen, summary)
    if as_json:
        print_json(to_json(summary))
    if reason == "interrupted":
        print(f"interrupted; continue with: vibeserve resume {run_dir}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    if not summary.scored:
        print(
            f"error: the run ended ({reason}) before any child was scored; `vibeserve watch {run_dir} --once` says "
            f"what happened, `vibeserve resume {run_dir} -s budget.children=N` continues",
            file=sys.stderr,
        )
        raise typer.Exit(BudgetError.exit_code)
