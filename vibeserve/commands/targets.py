"""Decides how a target is scaffolded and checked, and how one folder is judged against it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vibeserve.commands.options import JsonOption, ReducedIsolationOption, TargetArgument

if TYPE_CHECKING:
    from evaluators.target import Target

_TEMPLATE = Path(__file__).resolve().parent.parent / "templates" / "target"


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; must be empty or not exist.")],
    json: JsonOption = False,
) -> None:
    """Write a new target: every part, commented, around a toy model, so that all commands work at once."""
    from population.errors import InfrastructureError, UsageError
    from vibeserve.commands.output import console, print_json

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: expected an empty folder or none, found files; choose another")
    try:
        shutil.copytree(_TEMPLATE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    except OSError as error:
        raise InfrastructureError(f"{folder}: cannot be written: {error.strerror or error}") from error
    written = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
    screen = console(json)
    screen.print(f"{folder}: {', '.join(written)}", soft_wrap=True)
    screen.print(f"Next: vibeserve validate {folder}; vibeserve judge {folder} {folder}/seed", soft_wrap=True)
    if json:
        print_json({"folder": folder, "files": written})


def validate(target: TargetArgument, json: JsonOption = False) -> None:
    """Check a target folder and explain every defect at once."""
    from evaluators.target import load_target, validate_target
    from population.errors import ConfigError
    from vibeserve.commands.output import console, print_json

    problems = validate_target(target)
    if problems:
        raise ConfigError(problems)
    found = load_target(target)
    screen = console(json)
    for line in _describe(found):
        screen.print(line, soft_wrap=True)
    if json:
        print_json(
            {
                "target": target,
                "valid": True,
                "name": found.name,
                "objectives": list(found.objectives.names),
                "loads": [load.name for load in found.loads],
                "problems": [],
            }
        )


def judge(
    target: TargetArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A server's files, e.g. TARGET/seed.")],
    repeats: Annotated[int | None, typer.Option("--repeats", min=1, help="Default: as the target says.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of arrival times and lengths.")] = 0,
    allow_reduced_isolation: ReducedIsolationOption = False,
    json: JsonOption = False,
) -> None:
    """Judge and measure one folder as an evaluation does: boot, checker, benchmark, audit. Exit code 1 if rejected."""
    from evaluators.target import load_target
    from population.errors import UsageError
    from population.evaluation import Rejected
    from vibeserve.commands.output import console, print_json
    from vibeserve.judging import evaluation_json, judge_folder
    from vibeserve.wording import clean, isolation_text, number

    found = load_target(target)
    if not folder.is_dir():
        raise UsageError(f"{folder}: expected a folder with a server's files, found none")
    screen = console(json)
    evaluation = judge_folder(
        found, folder, repeats, seed, lambda stage: screen.print(f"… {stage}"), allow_reduced_isolation
    )
    values = evaluation_json(evaluation, found)
    if isinstance(evaluation, Rejected):
        screen.print(
            clean(f"rejected at {evaluation.stage}: {evaluation.reason}\n{evaluation.evidence}"), soft_wrap=True
        )
    else:
        screen.print(f"isolation: {isolation_text(evaluation.tier, evaluation.gaps)}", soft_wrap=True)
        screen.print("accurate" + (f" [{', '.join(evaluation.flags)}]" if evaluation.flags else ""))
        for name, m in values["metrics"].items():
            screen.print(
                f"  {name:<24} {number(m['value'])} {m['unit'] or ''}  ({number(m['low'])}–{number(m['high'])})"
            )
    if json:
        print_json(values)
    if isinstance(evaluation, Rejected):
        raise typer.Exit(1)


def _describe(target: Target) -> list[str]:
    objectives = ", ".join(f"{o.name} {o.direction}" for o in target.objectives)
    loads = ", ".join(f"{load.name} ({load.kind})" for load in target.loads)
    judge = "checker and audit" if target.audit else "checker only: add [audit] so that answers are re-scored"
    return [
        f"{target.folder}: valid",
        f"  objectives  {objectives}",
        f"  loads       {loads or 'the target measures itself'}",
        f"  judge       {judge}",
        f"  seed        {target.seed or 'none: a run needs seed/ or an LLM that writes it'}",
    ]
