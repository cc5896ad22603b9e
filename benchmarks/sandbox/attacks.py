"""Prints what each isolation tier of this machine lets through, attack by attack, as markdown.

python benchmarks/sandbox/attacks.py > benchmarks/sandbox/attacks.md
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evaluators.bubblewrap import BubblewrapSandbox
from evaluators.confine import landlock_abi
from evaluators.hostile.findings import Outcome, Probe, reason
from evaluators.hostile.probe import attack
from evaluators.isolation import facts, why_not_a, why_not_b
from evaluators.landlock import LandlockSandbox
from evaluators.limits import usable_controllers
from evaluators.node import small
from evaluators.sandbox import PlainSandbox, Sandbox

_TITLES = {"A": "A (bubblewrap)", "B": "B (Landlock + seccomp)", "C": "C (no isolation)"}
_CELLS = {Outcome.BLOCKED: "blocked", Outcome.LET_THROUGH: "**let through**", Outcome.NOT_APPLICABLE: "n/a"}


def main() -> None:
    """One probe per tier that this machine gives."""
    probes = [attack(small(sandbox)) for sandbox in sandboxes()]
    print("# What gets through\n")
    print(f"Made by `python benchmarks/sandbox/attacks.py` on {machine()}.\n")
    print("What a tier may let through, and why, is declared in `evaluators/hostile/findings.py`.\n")
    summary(probes)
    table(probes)
    for probe in probes:
        explain(probe)


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


def machine() -> str:
    """What decides the outcomes."""
    bwrap = shutil.which("bwrap")
    version = (
        subprocess.run([bwrap, "--version"], capture_output=True, text=True).stdout.strip() if bwrap else "no bwrap"
    )
    kernel = re.match(r"[\d.]*\d", platform.release())
    groups = ", ".join(f"{each.resource} (v{each.version})" for each in usable_controllers()) or "none"
    abi = facts().landlock
    landlock = f"Landlock ABI {abi}" if isinstance(abi, int) and abi else "no Landlock"
    return (
        f"Linux {kernel[0] if kernel else '?'} {platform.machine()}, {version}, {landlock}, "
        f"{'root' if os.geteuid() == 0 else 'an ordinary user'}, control groups: {groups}"
    )


def summary(probes: list[Probe]) -> None:
    """A line per tier."""
    print("| tier | attacks | blocked | let through | of these unexpected | not applicable | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for probe in probes:
        through = len(probe.let_through)
        counts = (probe.attacks, probe.attacks - through, through, len(probe.unexpected), len(probe.not_applicable))
        print(f"| {_TITLES[probe.tier]} | {' | '.join(map(str, counts))} | {probe.seconds:.1f} |")
    print()


def table(probes: list[Probe]) -> None:
    """A line per attack."""
    print(f"| attack | what it tries | {' | '.join(_TITLES[probe.tier] for probe in probes)} |")
    print(f"|---|---|{'---|' * len(probes)}")
    for row in zip(*(probe.findings for probe in probes), strict=True):
        cells = " | ".join(_CELLS[finding.outcome] for finding in row)
        print(f"| {row[0].name} | {row[0].tries} | {cells} |")


def explain(probe: Probe) -> None:
    """Why what got through may, what the tier says of itself, and what could not be tried."""
    print(f"\n## Tier {_TITLES[probe.tier]}\n")
    for gap in probe.gaps:
        print(f"- leaves open: {gap}")
    for finding in probe.findings:
        if finding.outcome is Outcome.LET_THROUGH and probe.tier != "C":
            print(f"- {finding.name} gets through: {reason(probe.tier, finding.name) or 'not allowed!'}")
        if finding.outcome is Outcome.NOT_APPLICABLE:
            print(f"- {finding.name} does not apply: {finding.detail}")


if __name__ == "__main__":
    main()
