"""Tries what each isolation tier of this machine lets through, attack by attack.

`python -m benchmarks.sandbox.attacks [--output benchmarks/sandbox/results.md]`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.chaos.kills import replace_section
from benchmarks.sandbox.facts import machine
from evaluators.bubblewrap import BubblewrapSandbox
from evaluators.confine import landlock_abi
from evaluators.hostile.findings import Outcome, Probe, reason
from evaluators.hostile.probe import attack
from evaluators.isolation import facts, why_not_a, why_not_b
from evaluators.landlock import LandlockSandbox
from evaluators.node import small
from evaluators.sandbox import PlainSandbox, Sandbox

MARK = "<!-- attacks -->"
_TITLES = {"A": "A (bubblewrap)", "B": "B (Landlock + seccomp)", "C": "C (no isolation)"}
_CELLS = {Outcome.BLOCKED: "blocked", Outcome.LET_THROUGH: "**let through**", Outcome.NOT_APPLICABLE: "n/a"}


def main() -> None:
    """One probe per tier that this machine gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    probes = [attack(small(sandbox)) for sandbox in sandboxes()]
    text = "\n".join([*summary(probes), *table(probes), *(line for probe in probes for line in explain(probe))])
    print(text)
    if given.output is not None:
        replace_section(given.output, MARK, text)


def sandboxes() -> list[Sandbox]:
    """One per tier, the strictest first."""
    found: list[Sandbox] = []
    for missing, make in (
        (why_not_a(facts()), BubblewrapSandbox),
        (why_not_b(facts()), lambda: LandlockSandbox(landlock_abi())),
        (None, PlainSandbox),
    ):
        if missing is None:
            found.append(make())
        else:
            print(f"left out: {missing.cause}", file=sys.stderr)
    return found


def summary(probes: list[Probe]) -> Iterator[str]:
    """A line per tier."""
    abi = facts().landlock
    yield f"On {machine()}, {f'Landlock ABI {abi}' if isinstance(abi, int) and abi else 'no Landlock'}.\n"
    yield "| tier | attacks | blocked | let through | of these unexpected | not applicable | seconds |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for probe in probes:
        through = len(probe.let_through)
        counts = (probe.attacks, probe.attacks - through, through, len(probe.unexpected), len(probe.not_applicable))
        yield f"| {_TITLES[probe.tier]} | {' | '.join(map(str, counts))} | {probe.seconds:.1f} |"
    reached = all(not probe.unexpected for probe in probes)
    yield "\nGoal: tier A blocks all; tier B lets through at most metadata reads and unix sockets with a path: " + (
        "reached.\n" if reached else "missed.\n"
    )


def table(probes: list[Probe]) -> Iterator[str]:
    """A line per attack."""
    yield f"| attack | what it tries | {' | '.join(_TITLES[probe.tier] for probe in probes)} |"
    yield f"|---|---|{'---|' * len(probes)}"
    for row in zip(*(probe.findings for probe in probes), strict=True):
        cells = " | ".join(_CELLS[finding.outcome] for finding in row)
        yield f"| {row[0].name} | {row[0].tries} | {cells} |"


def explain(probe: Probe) -> Iterator[str]:
    """Why what got through may, what the tier says of itself, and what could not be tried."""
    lines = [f"- leaves open: {gap}" for gap in probe.gaps]
    for finding in probe.findings:
        if finding.outcome is Outcome.LET_THROUGH and probe.tier != "C":
            lines.append(f"- {finding.name} gets through: {reason(probe.tier, finding.name) or 'not allowed!'}")
        if finding.outcome is Outcome.NOT_APPLICABLE:
            lines.append(f"- {finding.name} does not apply: {finding.detail}")
    if lines:
        yield "\n".join([f"\nTier {_TITLES[probe.tier]}:\n", *lines])


if __name__ == "__main__":
    main()
