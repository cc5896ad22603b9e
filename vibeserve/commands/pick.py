"""Decides how a candidate is asked for by what it must keep, and how the answer is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vibeserve.commands.options import JsonOption, RunArgument, RunsDirOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from population.objectives import Objective
    from vibeserve.conditions import Verdict
    from vibeserve.pick import Choice, Contender, Wish


def pick(
    run: RunArgument = None,
    slo: Annotated[
        str, typer.Option("--slo", help="Conditions that must hold, e.g. 'p99_ttft_ms<200, p50_tpot_ms@low<10'.")
    ] = "",
    maximize: Annotated[str | None, typer.Option("--maximize", help="Metric to be best at, as METRIC[@LOAD].")] = None,
    minimize: Annotated[str | None, typer.Option("--minimize", help="The same where less is better.")] = None,
    runs_dir: RunsDirOption = None,
    json: JsonOption = False,
) -> None:
    """Name the candidate that keeps a service level and is best at something, or say what fails and by how much.

    A condition without @LOAD is meant for the loads that the target's objectives use for that latency. A candidate
    whose whole 95 % intervals keep every condition comes before one whose measured values alone do. Exit code 1: none.

    Example: vibeserve pick --slo 'p99_ttft_ms<200, p50_tpot_ms<10' --maximize output_throughput
    """
    from vibeserve.commands.output import console, print_json
    from vibeserve.conditions import parse_conditions
    from vibeserve.pick import choice_json
    from vibeserve.pick import pick as choose
    from vibeserve.runs import find_run, read_run

    run_dir = find_run(run, runs_dir)
    conditions = parse_conditions(slo, "--slo") if slo.strip() else ()
    _, state = read_run(run_dir)
    choice = choose(state, conditions, _wish(maximize, minimize, tuple(state.archive.objectives)))
    screen = console(json)
    for line in _headline(choice):
        screen.print(line, soft_wrap=True)
    shown = choice.chosen or choice.nearest
    if shown is not None and shown.verdicts:
        screen.print(_table(shown))
    for line in _footnotes(choice, str(run_dir)):
        screen.print(line, soft_wrap=True)
    if json:
        print_json(choice_json(choice))
    if choice.chosen is None:
        raise typer.Exit(1)


def _wish(maximize: str | None, minimize: str | None, objectives: Sequence[Objective]) -> Wish | None:
    from population.errors import UsageError
    from population.objectives import Direction
    from vibeserve.pick import wish_of

    if maximize is not None and minimize is not None:
        raise UsageError("--maximize and --minimize exclude each other; give one, and the rest as --slo")
    if maximize is not None:
        return wish_of(maximize, Direction.MAX, objectives)
    return None if minimize is None else wish_of(minimize, Direction.MIN, objectives)


def _headline(choice: Choice) -> list[str]:
    from vibeserve.wording import number

    best = choice.chosen
    if best is None:
        nearest = choice.nearest
        if nearest is None:
            return [f"{choice.run}: no candidate has all of the metrics that are asked about"]
        broken = [v for v in nearest.verdicts if not v.certainty.holds]
        lines = [
            f"{choice.run}: none of {choice.considered} candidates keeps every condition; nearest is {nearest.id}:"
        ]
        return lines + [f"  {_broken(v)}" for v in broken]
    unit = f" {choice.unit}" if choice.unit else ""
    interval = f"95 % interval {number(best.aim.low)} – {number(best.aim.high)}, n={best.aim.n}"
    among = f"of {choice.considered} candidates"
    among = f"{choice.keeping} {among} keep every condition" if best.verdicts else f"the best {among}"
    way = "most" if choice.direction == "max" else "least"
    return [f"{best.id}: {way} {choice.key}, {number(best.aim.value)}{unit} ({interval}); {among}"]


def _broken(verdict: Verdict) -> str:
    from vibeserve.wording import number

    found, limit = verdict.found, f"{verdict.condition.limit:,g}"
    side = "above" if verdict.condition.upper else "below"
    by = (
        f"{number(abs(verdict.distance))} ({verdict.excess - 1:.0%})"
        if verdict.excess < 10
        else f"{verdict.excess:.0f}×"
    )
    sure = (
        ""
        if verdict.certainty == "broken"
        else f", though the interval from {number(found.low)} to {number(found.high)} allows it"
    )
    return f"{verdict.key} is {number(found.value)}, {side} the limit of {limit} by {by}{sure}"


def _table(contender: Contender) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from vibeserve.wording import number

    table = Table("condition", "load", "measured", "95 % interval", "n", "verdict", box=SIMPLE_HEAD, pad_edge=False)
    for v in contender.verdicts:
        asked = f"{v.condition.metric} {v.condition.relation} {v.condition.limit:,g}"
        load = v.key.partition("@")[2] or "–"
        interval = f"{number(v.found.low)} – {number(v.found.high)}"
        table.add_row(asked, load, number(v.found.value), interval, str(v.found.n), str(v.certainty))
    return table


def _footnotes(choice: Choice, run: str) -> list[str]:
    from population.candidate import candidate_id
    from vibeserve.wording import number

    best = choice.chosen
    if best is None:
        return ["Search on with `vibeserve resume`, relax a limit, or ask for another load with METRIC@LOAD."]
    lines = []
    if not best.sure:
        lines.append("Not certain: an interval reaches beyond its limit; measure it again before you rely on it.")
    if choice.runner_up is not None:
        better = choice.runner_up
        lines.append(f"{better.id} measured {number(better.aim.value)}, but its intervals reach beyond a limit.")
    worse = [v for v in choice.held_out if not v.certainty.holds]
    if worse:
        lines.append("On the held-out trace, measured afresh, it breaks: " + "; ".join(_broken(v) for v in worse))
    elif choice.held_out:
        lines.append("Measured afresh on the held-out trace it keeps every condition, too.")
    elif best.verdicts:
        lines.append(
            "It was chosen among many by measurements that are partly luck, and not measured on the held-out trace."
        )
    if best.id != candidate_id(0):
        lines.append(f"Next: vibeserve verify {best.id} --run {run}; vibeserve deploy {best.id} my-server --run {run}")
    return lines
