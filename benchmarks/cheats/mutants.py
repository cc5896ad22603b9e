"""Decides whether every check of the product is needed: each is switched off, and the cheat it is for must get through.

    python -m benchmarks.cheats.mutants [--only WORD] [--output FILE.md]      (from the root of the checkout)

The mutants are those of tests/cheats/mutants.py, of which CI tries a sample. A mutant is tried again, at most twice,
where the machine's timing decided instead of the check; the table says how often. Exit code 1: a mutant was caught.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.cheats.corpus import load_corpus
from tests.cheats.ground import Ground, proving_ground
from tests.cheats.mutants import MUTANTS, Mutant, problems

HERE = Path(__file__).resolve().parent
ATTEMPTS = 3
TEXT = """\
# What each check is for

Made by `python -m benchmarks.cheats.mutants`: {count} mutants in {seconds:.0f} s, tier {tier}. Each switches one check
off, and with it the cheat ends as the table says: scored, rejected by a later check, or with an effect outside that the
witnesses see. {missed} of them made no difference.

| check that was switched off | cheat | then | attempts |
|---|---|---|---|
{table}
"""


def needed(mutant: Mutant, ground: Ground) -> tuple[int, list[str]]:
    """After how many attempts the cheat got through, and what was wrong with the last attempt."""
    cheat = next(cheat for cheat in load_corpus()[0] if cheat.name == mutant.cheat)
    found: list[str] = []
    for attempt in range(1, ATTEMPTS + 1):
        found = problems(mutant, cheat, ground)
        if not found:
            return attempt, []
    return ATTEMPTS, found


def row(mutant: Mutant, attempts: int, found: Sequence[str]) -> str:
    ended = f"{mutant.then}, with the effect: {mutant.effect}" if mutant.effect else mutant.then
    shown = f"NO DIFFERENCE: {' '.join(found)[:300]}" if found else ended
    return f"| {mutant.check} | {mutant.cheat} | {shown.replace(chr(10), ' ').replace('|', '/')} | {attempts} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants with this word in the check's name")
    parser.add_argument("--output", type=Path, default=HERE / "mutants.md")
    arguments = parser.parse_args()
    began, rows, missed = time.monotonic(), [], 0
    with tempfile.TemporaryDirectory() as folder, proving_ground(Path(folder)) as ground:
        for mutant in (mutant for mutant in MUTANTS if arguments.only in mutant.check):
            attempts, found = needed(mutant, ground)
            missed += bool(found)
            rows.append(row(mutant, attempts, found))
            print(rows[-1], flush=True)
    report = TEXT.format(
        count=len(rows),
        seconds=time.monotonic() - began,
        tier="A" if ground.sandbox is None else "C",
        missed=missed,
        table="\n".join(rows),
    )
    arguments.output.write_text(report, encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
