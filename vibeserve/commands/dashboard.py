"""Decides how the dashboard is started: which runs it shows, where it listens, and what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vibeserve.commands.options import JsonOption, RunsDirOption


def dashboard(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Runs: folders, names or unique parts of names. All if omitted."),
    ] = None,
    runs_dir: RunsDirOption = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="On 127.0.0.1 (default: 8642, or a free one if it is taken)."),
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open it in this machine's browser.")] = False,
    slo: Annotated[str, typer.Option("--slo", help="Service level to shade, e.g. 'p99_ttft_ms<200'.")] = "",
    gpu_hour_dollars: Annotated[
        float | None, typer.Option("--gpu-hour-dollars", min=0, help="Price of a GPU-hour, for the cost pages.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Watch runs in a browser: fronts, progress, lineage, candidates, slots, failures. Ctrl-C ends it, not the runs.

    Served on this machine's loopback alone, to whoever has the printed address. From a laptop:
    `ssh -L 8642:127.0.0.1:8642 HOST`, then open the same address there.
    """
    from vibeserve.commands.output import console, print_json
    from vibeserve.conditions import parse_conditions
    from vibeserve.dashboard.server import Settings, serve
    from vibeserve.dashboard.spending import Prices

    if slo.strip():
        parse_conditions(slo, "--slo")
    chosen = _chosen(runs or [], runs_dir)

    def announce(address: str) -> None:
        screen = console(json)
        screen.print(f"{len(chosen)} run{'s' if len(chosen) > 1 else ''} at  {address}", soft_wrap=True)
        note = "Only this machine can open it, with this address. Ctrl-C ends the dashboard, not the runs."
        screen.print(note, soft_wrap=True)
        if json:
            print_json({"url": address, "runs": [run.name for run in chosen]})
        if browser:
            import webbrowser

            webbrowser.open(address)

    prices = Prices(gpu_hour=gpu_hour_dollars)
    serve(Settings(runs=chosen, port=port, prices=prices, service_level=slo), announce)


def _chosen(names: list[str], runs_dir: Path | None) -> list[Path]:
    from vibeserve.runs import find_run, list_runs

    if names:
        return list(dict.fromkeys(find_run(name, runs_dir) for name in names))
    latest = find_run(None, runs_dir)  # says what to do if there is none
    return list_runs(runs_dir)[::-1] or [latest]
