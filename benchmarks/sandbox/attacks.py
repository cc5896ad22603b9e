"""Tries what each isolation tier of this machine lets through, attack by attack, with and without control groups.

`python -m benchmarks.sandbox.attacks [--output benchmarks/sandbox/results.md]`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.chaos.kills import replace_section
from benchmarks.sandbox.facts import machine
from evaluators.bubblewrap import BubblewrapSandbox
from evaluators.confine import landlock_abi
from evaluators.hostile.findings import Outcome, Probe, reason
from evaluators.hostile.probe import LIMITS, attack
from evaluators.isolation import facts, why_not_a, why_not_b
from evaluators.landlock import LandlockSandbox
from evaluators.sandbox import PlainSandbox, Sandbox

MARK = "<!-- attacks -->"
_CELLS = {Outcome.BLOCKED: "blocked", Outcome.LET_THROUGH: "**let through**", Outcome.NOT_APPLICABLE: "n/a"}


def main() -> None:
    """One probe per tier that this machine gives, and one more for what tiers A and B are without control groups."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    probes = {title: attack(sandbox) for title, sandbox in sandboxes().items()}
    explained = (line for title, probe in probes.items() for line in explain(title, probe))
    text = "\n".join([*summary(probes), *table(probes), *explained])
    print(text)
    if given.output is not None:
        replace_section(given.output, MARK, text)


def sandboxes() -> dict[str, Sandbox]:
    """Title → sandbox, the strictest first."""
    found: dict[str, Sandbox] = {}
    if (missing := why_not_a(facts())) is None:
        found["A (bubblewrap)"] = BubblewrapSandbox(limits=LIMITS)
        found["A without control groups"] = BubblewrapSandbox(limits=LIMITS, controllers=())
    else:
        print(f"left out: {missing.cause}", file=sys.stderr)
    if (missing := why_not_b(facts())) is None:
        found["B (Landlock + seccomp)"] = LandlockSandbox(landlock_abi(), limits=LIMITS)
        found["B without control groups"] = LandlockSandbox(landlock_abi(), limits=LIMITS, controllers=())
    else:
        print(f"left out: {missing.cause}", file=sys.stderr)
    return {**found, "C (no isolation)": PlainSandbox()}


def summary(probes: Mapping[str, Probe]) -> Iterator[str]:
    """A line per sandbox."""
    abi = facts().landlock
    yield f"On {machine()}, {f'Landlock ABI {abi}' if isinstance(abi, int) and abi else 'no Landlock'}.\n"
    yield "| tier | attacks | blocked | let through | of these unexpected | not applicable | seconds |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for title, probe in probes.items():
        through = len(probe.let_through)
        counts = (probe.attacks, probe.attacks - through, through, len(probe.unexpected), len(probe.not_applicable))
        yield f"| {title} | {' | '.join(map(str, counts))} | {probe.seconds:.1f} |"
    reached = all(not probe.unexpected for probe in probes.values())
    yield "\nGoal: tier A blocks all; tier B lets through at most metadata reads and unix sockets with a path: " + (
        "reached.\n" if reached else "missed.\n"
    )


def table(probes: Mapping[str, Probe]) -> Iterator[str]:
    """A line per attack."""
    yield f"| attack | what it tries | {' | '.join(probes)} |"
    yield f"|---|---|{'---|' * len(probes)}"
    for row in zip(*(probe.findings for probe in probes.values()), strict=True):
        cells = " | ".join(_CELLS[finding.outcome] for finding in row)
        yield f"| {row[0].name} | {row[0].tries} | {cells} |"


def explain(title: str, probe: Probe) -> Iterator[str]:
    """Why what got through may, what the sandbox says of itself, and what could not be tried."""
    lines = [f"- leaves open: {gap}" for gap in probe.gaps]
    for finding in probe.findings:
        if finding.outcome is Outcome.LET_THROUGH and probe.tier != "C":
            lines.append(f"- {finding.name} gets through: {reason(probe.tier, finding.name) or 'not allowed!'}")
        if finding.outcome is Outcome.NOT_APPLICABLE:
            lines.append(f"- {finding.name} does not apply: {finding.detail}")
    if lines:
        yield "\n".join([f"\nTier {title}:\n", *lines])


if __name__ == "__main__":
    main()
