"""Decides how a claim is asked for and shown: a fresh paired measurement, never the search's own numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vibeserve.commands.options import (
    REDUCED_ISOLATION,
    CandidateArgument,
    JsonOption,
    ReducedIsolationOption,
    RunOption,
    RunsDirOption,
)

if TYPE_CHECKING:
    from vibeserve.claims import Claim

if TYPE_CHECKING:
    from vibeserve.claims import Claim


def verify(
    candidate: CandidateArgument,
    against: Annotated[str, typer.Option("--against", help="A candidate, `seed`, or a baseline's name.")] = "seed",
    pairs: Annotated[int, typer.Option("--pairs", min=2, help="Pairs of measurements, in alternating order.")] = 10,
    run: RunOption = None,
    runs_dir: RunsDirOption = None,
    allow_reduced_isolation: ReducedIsolationOption = False,
    json: JsonOption = False,
) -> None:
    """Measure CANDIDATE against another server, freshly and in pairs, and say how many times better it is.

    The search selects by few repeats, so its best numbers are partly luck; a claim is measured anew, on the held-out
    trace, in ABBA order on one device, and is kept in the run's claims folder. It takes ten pairs; with fewer the
    result is shown as what it is: not a claim.
    """
    from rich.table import Table

    from population.errors import UsageError
    from vibeserve.claims import claim_json
    from vibeserve.commands.output import console, print_json
    from vibeserve.runs import candidate_name, find_candidate
    from vibeserve.verifying import verify as measure
    from vibeserve.wording import gain, number

    reference = find_candidate(candidate, run, runs_dir)
    try:
        other = candidate_name(against)
    except UsageError:
        other = against  # a baseline's name
    screen = console(json)
    overrides = (REDUCED_ISOLATION,) if allow_reduced_isolation else ()
    claim = measure(
        reference.run_dir, reference.candidate, other, pairs, lambda text: screen.print(text, soft_wrap=True), overrides
    )
    title = f"{claim.candidate} against {claim.against}, {claim.pairs} pairs (× above 1 is better)"
    table = Table("objective", "gain", "95 % together", "claimed", claim.candidate, claim.against, title=title)
    table.title_justify = "left"
    for name, ratio in claim.gains.items():
        sides = (number(claim.measured[side][name].value) for side in (claim.candidate, claim.against))
        table.add_row(name, gain(ratio.value), f"{gain(ratio.low)} – {gain(ratio.high)}", _claimed(claim, name), *sides)
    screen.print(table)
    for reason in claim.shortfalls:
        screen.print(f"not a claim: {reason}", soft_wrap=True)
    if claim.flags:
        screen.print(f"caveats: {', '.join(claim.flags)}", soft_wrap=True)
    if json:
        print_json({"run": reference.run_dir.name, **claim_json(claim)})


def _claimed(claim: Claim, objective: str) -> str:
    """`better, at least 2.95×`, `worse, at most 0.93×`, `no difference shown` or `not a claim`."""
    from vibeserve.claims import Verdict
    from vibeserve.wording import gain

    verdict, bound = claim.verdict(objective), claim.claimed(objective)
    if bound is None:
        return verdict.value
    return f"{verdict.value}, at {'least' if verdict is Verdict.BETTER else 'most'} {gain(bound)}"
