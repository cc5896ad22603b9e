"""Decides how fronts are compared from the command line, and in which format the answer comes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vibeserve.commands.options import JsonOption, RunsDirOption

if TYPE_CHECKING:
    from vibeserve.comparing.comparison import Comparison


class Format(StrEnum):
    """Of the answer."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "md"
    HTML = "html"


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN…", help="Runs or sweeps: folder, name or a unique part of it.")
    ],
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            metavar="FILE|RUN",
            help="A result of `vibeserve bench --output FILE`, NAME=FILE (several of one name make a front), or a run.",
        ),
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option("--objectives", metavar="A,B,C", help="Only these, or other metrics: p99_ttft_ms@low."),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to answer.")] = Format.TABLE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there instead of stdout.")
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Compare the measurements on the held-out trace at the runs' ends.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Compare what was not measured alike; the output says so.")
    ] = False,
    runs_dir: RunsDirOption = None,
    json: JsonOption = False,
) -> None:
    """Compare the fronts of runs and baselines: who is better, by how much, and how sure that is.

    Refuses runs whose target, workload, benchmark or hardware differ, and says what differs. A sweep stands for its
    runs. --format html writes one page that needs no network.

    Examples: vibeserve compare RUN1 RUN2; vibeserve compare SWEEP --format html -o sweep.html;
    vibeserve compare RUN --baseline vllm=vllm.json
    """
    from vibeserve.comparing.contenders import Selection
    from vibeserve.comparing.line_up import line_up

    names = tuple(name.strip() for name in objectives.split(",") if name.strip()) if objectives else ()
    selection = Selection(objectives=names, held_out=held_out)
    comparison = line_up(runs, baseline or (), selection, runs_dir, force)
    _answer(comparison, Format.JSON if json else form, output, json)


def _answer(comparison: Comparison, form: Format, output: Path | None, as_json: bool) -> None:
    from vibeserve.commands.output import console, print_json
    from vibeserve.comparing.output import print_comparison, to_json, to_markdown

    if form is Format.HTML:
        from vibeserve.comparing.page import to_page

        text, output = to_page(comparison), output or Path("comparison.html")
    elif form is Format.MARKDOWN:
        text = to_markdown(comparison)
    elif output is None:
        return print_json(to_json(comparison)) if form is Format.JSON else print_comparison(console(False), comparison)
    else:
        text = _json_text(to_json(comparison)) if form is Format.JSON else _plain_text(comparison)
    if output is None:
        return print(text, end="")
    _write(output, text)
    console(as_json).print(f"written to {output}", soft_wrap=True)


def _json_text(value: object) -> str:
    import json

    from vibeserve.plain import plain

    return json.dumps(plain(value), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _plain_text(comparison: Comparison) -> str:
    import io

    from rich.console import Console

    from vibeserve.comparing.output import print_comparison

    stream = io.StringIO()
    print_comparison(Console(file=stream, width=160, highlight=False, markup=False), comparison)
    return stream.getvalue()


def _write(path: Path, text: str) -> None:
    from population.errors import InfrastructureError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InfrastructureError(f"{path}: cannot be written: {error.strerror}") from error
