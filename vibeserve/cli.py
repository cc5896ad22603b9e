"""Decides the command line: which commands exist, and how every error becomes a message and an exit code.

Nothing heavy is imported here or at module level in `vibeserve/commands`: `vibeserve --help` starts in a moment.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from population.errors import ConfigError, VibeServeError
from vibeserve import __version__
from vibeserve.commands import (
    bench,
    candidates,
    compare,
    dashboard,
    deploy,
    engine,
    fronts,
    machine,
    pick,
    report,
    runs,
    sweep,
    targets,
    verify,
)
from vibeserve.commands.output import INTERRUPTED, print_json


class _Group(TyperGroup):
    """The one place where an exception becomes an exit code; `--json` and `--debug` work anywhere on the line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = args[: args.index("--")] if "--" in args else args
        ctx.meta["vibeserve.json"] = "--json" in options
        ctx.meta["vibeserve.debug"] = "--debug" in options
        if "--debug" in options:
            args.remove("--debug")
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except VibeServeError as error:
            if ctx.meta["vibeserve.debug"] or _debug_wanted():
                raise
            _report(error, error.exit_code, ctx.meta["vibeserve.json"])
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            _report(interrupt, INTERRUPTED, ctx.meta["vibeserve.json"])
            raise typer.Exit(INTERRUPTED) from interrupt
        except BrokenPipeError as error:
            sys.stderr.close()  # the reader of our output has gone; say nothing more
            raise typer.Exit(0) from error


def _debug_wanted() -> bool:
    from vibeserve.config import debug_wanted

    return debug_wanted()


def _report(error: BaseException, exit_code: int, as_json: bool) -> None:
    message = str(error) or "interrupted"
    print(f"error: {message}", file=sys.stderr)
    if as_json:
        problems = {"problems": error.problems} if isinstance(error, ConfigError) else {}
        print_json({"error": message, "exit_code": exit_code, **problems})


app = typer.Typer(
    cls=_Group,
    name="vibeserve",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Evolve a bespoke LLM serving system for one target: model, hardware and workload.",
    epilog="Exit codes: 0 ok, 1 failure, 2 usage, 3 config, 4 budget exhausted without a front, 130 interrupted. "
    "--debug (or VIBESERVE_DEBUG=1) shows tracebacks.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"vibeserve {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


_SEARCH, _RUNS, _CANDIDATES, _TOOLS = "Search", "Runs", "Candidates", "Targets and tools"

app.command("run", rich_help_panel=_SEARCH)(engine.run)
app.command("resume", rich_help_panel=_SEARCH)(engine.resume)
app.command("stop", rich_help_panel=_SEARCH)(engine.stop)
app.command("sweep", rich_help_panel=_SEARCH)(sweep.sweep)
app.command("ls", rich_help_panel=_RUNS)(runs.ls)
app.command("status", rich_help_panel=_RUNS)(runs.status)
app.command("watch", rich_help_panel=_RUNS)(runs.watch)
app.command("dashboard", rich_help_panel=_RUNS)(dashboard.dashboard)
app.command("index", rich_help_panel=_RUNS)(runs.index)
app.command("front", rich_help_panel=_RUNS)(fronts.front)
app.command("compare", rich_help_panel=_RUNS)(compare.compare)
app.command("report", rich_help_panel=_RUNS)(report.report)
app.command("pick", rich_help_panel=_RUNS)(pick.pick)
app.command("show", rich_help_panel=_CANDIDATES)(candidates.show)
app.command("diff", rich_help_panel=_CANDIDATES)(candidates.diff)
app.command("log", rich_help_panel=_CANDIDATES)(candidates.log)
app.command("export", rich_help_panel=_CANDIDATES)(fronts.export)
app.command("deploy", rich_help_panel=_CANDIDATES)(deploy.deploy)
app.command("verify", rich_help_panel=_CANDIDATES)(verify.verify)
app.command("bench", rich_help_panel=_TOOLS)(bench.bench)
app.command("judge", rich_help_panel=_TOOLS)(targets.judge)
app.command("validate", rich_help_panel=_TOOLS)(targets.validate)
app.command("init", rich_help_panel=_TOOLS)(targets.init)
app.command("doctor", rich_help_panel=_TOOLS)(machine.doctor)


def main() -> None:
    """Entry point of the `vibeserve` script."""
    app()
