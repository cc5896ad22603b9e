"""Decides whether cheats are stopped, and honest twins pass, at the size of examples/tiny-llama, with longer windows.

    python -m benchmarks.cheats.real_size [--only WORD] [--output FILE.md]      (from the root of the checkout)

The corpus of CI uses a model of about a million parameters and windows of half a second. Here the same trees serve the
example's model, some twenty times larger, with windows of 2 s. Diff inspection is off for the cheats, so that what is
left must stop them. Exit code 1: a cheat was scored, or a twin was not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from population.errors import InfrastructureError
from population.evaluation import Rejected
from tests.cheats.corpus import Cheat, Outcome, Tree, load_corpus
from tests.cheats.ground import Conditions, Ground, proving_ground

HERE = Path(__file__).resolve().parent
CONFIG = HERE.parents[1] / "examples" / "tiny-llama" / "reference" / "config.json"
SETTINGS = (
    ("prompt_ids = [99, 2047]", "prompt_ids = [99, 8191]"),
    ("ready_timeout_s = 6", "ready_timeout_s = 30"),
    ("rate_per_s = 24", "rate_per_s = 6"),
    ("window_s = 0.7", "window_s = 2.0"),
    ("window_s = 0.5", "window_s = 2.0"),
    ("timeout_s = 10", "timeout_s = 40"),
)
ATTEMPTS = 2
TEXT = """\
# The corpus at the size of tiny-llama

Made by `python -m benchmarks.cheats.real_size`: model of `examples/tiny-llama`, windows of 2 s, tier {tier},
{seconds:.0f} s. Cheats run without diff inspection. A tree whose outcome is not the expected one is tried once more,
because timing decides some of them; the last column says how often.

{done} of {planned} trees were tried: {cheats} cheats, of which {stopped} were stopped; {twins} honest twins, of which
{passed} passed.

| tree | kind | ended | attempts |
|---|---|---|---|
{table}
"""


def tried(tree: Tree, expected: Outcome, ground: Ground, conditions: Conditions) -> tuple[str, bool, int]:
    """How the last attempt ended, whether that is as it should be, and how many there were.

    At this size a cheat may be stopped by another check than in CI: any rejection will do, or the effects that an
    unrewarded trick may not have.
    """
    ended, good = "", False
    for attempt in range(1, ATTEMPTS + 1):
        try:
            trial = ground.try_out(tree, conditions)
        except InfrastructureError as error:
            ended, good = f"fault of the machine: {error}", False
            continue
        verdict = trial.evaluation
        rejected = isinstance(verdict, Rejected)
        ended = f"{verdict.stage}: {verdict.reason}" if isinstance(verdict, Rejected) else "scored"
        good = not trial.effects and (rejected if expected.stages else not trial.problems(expected))
        if trial.effects:
            ended = f"{ended}; {'; '.join(trial.effects)}"
        if good:
            return ended, True, attempt
    return ended, good, ATTEMPTS


def row(name: str, kind: str, ended: str, good: bool, attempts: int) -> str:
    shown = ended.replace("\n", " ").replace("|", "/")[:300]
    return f"| {name} | {kind} | {'' if good else '**not as it should** '}{shown} | {attempts} |"


def written(rows: Sequence[str], counts: Mapping[str, Sequence[int]], planned: int, tier: str, seconds: float) -> str:
    """The page, also in the middle of the work."""
    (cheats, stopped), (twins, passed) = counts["cheat"], counts["twin"]
    return TEXT.format(
        tier=tier, seconds=seconds, done=len(rows), planned=planned, table="\n".join(rows),
        cheats=cheats, stopped=stopped, twins=twins, passed=passed,
    )  # fmt: skip


def trials(words: str) -> Sequence[tuple[Tree, str, Outcome, Conditions]]:
    """Everything to try, cheats first."""
    cheats, twins = load_corpus()
    chosen: list[Cheat] = [cheat for cheat in cheats if words in cheat.name]
    blind = Conditions(blind=True, settings=SETTINGS, config=CONFIG)
    found = [(cheat.tree, "cheat", cheat.outcome, blind) for cheat in chosen]
    honest = [twin for twin in twins.values() if words in twin.name]
    return [
        *found,
        *((t, "twin", Outcome(), Conditions(allow=t.allow, settings=SETTINGS, config=CONFIG)) for t in honest),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="trees with this word in their name")
    parser.add_argument("--output", type=Path, default=HERE / "real_size.md")
    arguments = parser.parse_args()
    began = time.monotonic()
    counts = {"cheat": [0, 0], "twin": [0, 0]}
    rows = []
    with tempfile.TemporaryDirectory() as folder, proving_ground(Path(folder)) as ground:
        planned = trials(arguments.only)
        for tree, kind, expected, conditions in planned:
            ended, good, attempts = tried(tree, expected, ground, conditions)
            counts[kind][0] += 1
            counts[kind][1] += good
            rows.append(row(tree.name, kind, ended.replace(folder, "…"), good, attempts))
            print(rows[-1], flush=True)
            report = written(
                rows, counts, len(planned), "A" if ground.sandbox is None else "C", time.monotonic() - began
            )
            arguments.output.write_text(report, encoding="utf-8")  # each time: it takes a while
    (cheats, stopped), (twins, passed) = counts["cheat"], counts["twin"]
    return int(stopped < cheats or passed < twins)


if __name__ == "__main__":
    sys.exit(main())
