"""Decides how a claim is asked for and shown: a fresh paired measurement, never the search's own numbers."""

from __future__ import annotations

from typing import Annotated

import typer

from vibeserve.commands.options import CandidateArgument, JsonOption, RunOption, RunsDirOption


def verify(
    candidate: CandidateArgument,
    against: Annotated[str, typer.Option("--against", help="A candidate, `seed`, or a baseline's name.")] = "seed",
    pairs: Annotated[int, typer.Option("--pairs", min=2, help="Pairs of measurements, in alternating order.")] = 10,
    run: RunOption = None,
    runs_dir: RunsDirOption = None,
    json: JsonOption = False,
) -> None:
    """Measure CANDIDATE against another server, freshly and in pairs, and say how many times better it is.

    The search selects by few repeats, so its best numbers are partly luck; a claim is measured anew, on the held-out
    trace, in ABBA order, and is kept in the run's claims folder.
    """
    from rich.table import Table

    from population.errors import UsageError
    from vibeserve.commands.output import console, print_json
    from vibeserve.runs import candidate_name, find_candidate
    from vibeserve.tables import gain, number
    from vibeserve.wiring import verify as measure

    reference = find_candidate(candidate, run, runs_dir)
    try:
        other = candidate_name(against)
    except UsageError:
        other = against  # a baseline's name
    screen = console(json)
    claim = measure(
        reference.run_dir, reference.candidate, other, pairs, lambda text: screen.print(text, soft_wrap=True)
    )
    title = (
        f"Claim: {claim.candidate} against {claim.against}, {claim.pairs} pairs (× above 1 is better, 95 % interval)"
    )
    table = Table("objective", "gain", "interval", claim.candidate, claim.against, title=title, title_justify="left")
    for name, ratio in claim.gains.items():
        sides = (number(claim.measured[side][name].value) for side in (claim.candidate, claim.against))
        table.add_row(name, gain(ratio.value), f"{gain(ratio.low)} – {gain(ratio.high)}", *sides)
    screen.print(table)
    if claim.flags:
        screen.print(f"caveats: {', '.join(claim.flags)}", soft_wrap=True)
    if json:
        gains = {n: {"value": e.value, "low": e.low, "high": e.high, "n": e.n} for n, e in claim.gains.items()}
        measured = {
            side: {n: {"value": e.value, "low": e.low, "high": e.high, "n": e.n} for n, e in values.items()}
            for side, values in claim.measured.items()
        }
        print_json(
            {
                "run": reference.run_dir.name,
                "candidate": claim.candidate,
                "against": claim.against,
                "pairs": claim.pairs,
                "gains": gains,
                "measured": measured,
                "nodes": list(claim.nodes),
                "flags": list(claim.flags),
            }
        )
