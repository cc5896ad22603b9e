"""Decides how often an honest server is rejected: evaluations of honest trees on the target of the cheat corpus.

    python -m benchmarks.cheats.false_flags [--evaluations 200] [--output FILE.md]      (from the root of the checkout)

The trees are the corpus's honest twins and its seed with other knobs, in turn; each evaluation has prompts of its own.
Every outcome is a line of FILE.jsonl as soon as it is known: started again, it goes on where it was stopped. `--fresh`
begins anew.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from population.errors import InfrastructureError
from population.evaluation import Rejected
from population.recipe import Edit
from tests.cheats.corpus import Tree, load_corpus
from tests.cheats.ground import Conditions, Ground, proving_ground

HERE = Path(__file__).resolve().parent
CONFIDENCE = 0.95
FIRST_SEED = 100_000
"""Far from the content seeds that the corpus's own tests take."""
KNOBS = (
    ("engine.toml", "max_running", 16, (1, 4, 64)),
    ("engine.toml", "prefills_per_step", 4, (1, 16)),
    ("server.toml", "flush_tokens", 1, (2, 4)),
)
TEXT = """\
# False flags

Made by `python -m benchmarks.cheats.false_flags{options}`, tier {tiers}: honest trees on the target of the cheat corpus
(`tests/cheats/target`), {variants} of them in turn, each evaluation with secret prompts of its own. An evaluation is
flagged when it is rejected at any stage, diff inspection included, or when a witness sees an effect outside of it.
{allowing} of the trees do honestly what a rule of the inspection forbids by default ({rules}): they run on
a target that allows it in `[inspection.allow]`; all others run under every rule.

| honest evaluations | flagged | rate | 95 % interval (Clopper-Pearson) | seconds each (median) |
|---|---|---|---|---|
| {count} | {flagged} | {rate:.2%} | {low:.2%} to {high:.2%} | {seconds:.1f} |

{faults} evaluations ended in a fault of the machine, which is no verdict; they are not counted.

{reasons}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One line of the records."""

    number: int
    variant: str
    tier: str
    verdict: str
    """scored, flagged, or fault."""
    said: str = ""
    evidence: str = ""
    seconds: float


def variants() -> tuple[Tree, ...]:
    """Every honest twin, the seed, and the seed with one knob at another value."""
    turned = [
        Tree(name=f"{knob}={value}", edits=(_knob(path, knob, default, value),))
        for path, knob, default, values in KNOBS
        for value in values
    ]
    return (Tree(name="seed"), *turned, *load_corpus()[1].values())


def _knob(path: str, knob: str, default: int, value: int) -> Edit:
    head = f"[knob.{knob}]\nvalue = "
    return Edit(path=path, find=f"{head}{default}\n", replace=f"{head}{value}\n")


def evaluate(ground: Ground, number: int, tree: Tree) -> Outcome:
    """One evaluation; its number decides the prompts."""
    started_s = time.monotonic()
    verdict, said, tier, evidence = "scored", "", "?", ""
    try:
        trial = ground.try_out(tree, Conditions(allow=tree.allow), content_seed=FIRST_SEED + number)
    except InfrastructureError as error:
        verdict, said = "fault", str(error)
    else:
        tier, found = trial.evaluation.tier, list(trial.effects)
        if isinstance(trial.evaluation, Rejected):
            found.append(f"{trial.evaluation.stage}: {trial.evaluation.reason}")
            evidence = trial.evaluation.evidence[:1000]
        verdict, said = ("flagged", "; ".join(found)) if found else ("scored", "")
    seconds = round(time.monotonic() - started_s, 2)
    return Outcome(
        number=number, variant=tree.name, tier=tier, verdict=verdict, said=said, evidence=evidence, seconds=seconds
    )


def interval(events: int, count: int) -> tuple[float, float]:
    """Exact (Clopper and Pearson 1934) bounds of a probability after `events` of `count`."""
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if events == 0 else _root(lambda p: 1 - _at_most(events - 1, count, p) >= tail)
    high = 1.0 if events == count else _root(lambda p: _at_most(events, count, p) <= tail)
    return low, high


def _at_most(events: int, count: int, p: float) -> float:
    return math.fsum(math.comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(events + 1))


def _root(beyond: Callable[[float], bool]) -> float:
    """Where `beyond` becomes true, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high


def read(records: Path) -> list[Outcome]:
    """The outcomes so far."""
    return [Outcome(**json.loads(line)) for line in records.read_text().splitlines()] if records.is_file() else []


def run(records: Path, evaluations: int) -> None:
    """Add what is missing to `records`."""
    done = {outcome.number for outcome in read(records)}
    trees = variants()
    with tempfile.TemporaryDirectory(prefix="false-flags-") as folder, proving_ground(Path(folder)) as ground:
        for number in sorted(set(range(evaluations)) - done):
            outcome = evaluate(ground, number, trees[number % len(trees)])
            with records.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
            said = f": {outcome.said}" if outcome.said else ""
            print(
                f"{number + 1}/{evaluations} {outcome.variant} {outcome.verdict} ({outcome.seconds} s){said}",
                flush=True,
            )


def report(outcomes: Sequence[Outcome], options: str) -> str:
    """The page about them."""
    judged = [outcome for outcome in outcomes if outcome.verdict != "fault"]
    flagged = [outcome for outcome in judged if outcome.verdict == "flagged"]
    low, high = interval(len(flagged), len(judged))
    allowing = [tree for tree in variants() if tree.allow]
    reasons = [f"- {o.variant} (evaluation {o.number}): {o.said}" for o in flagged]
    return TEXT.format(
        options=options,
        tiers=", ".join(f"{tier} ({n})" for tier, n in sorted(Counter(o.tier for o in judged).items())),
        variants=len({outcome.variant for outcome in judged}),
        allowing=len(allowing),
        rules=", ".join(sorted({f"`{rule}`" for tree in allowing for rule in tree.allow})),
        count=len(judged),
        flagged=len(flagged),
        rate=len(flagged) / len(judged),
        low=low,
        high=high,
        seconds=sorted(o.seconds for o in judged)[len(judged) // 2],
        faults=len(outcomes) - len(judged),
        reasons="\n".join(["Flagged:", "", *reasons] if reasons else ["None was flagged."]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--output", type=Path, default=HERE / "results.md")
    parser.add_argument("--fresh", action="store_true", help="forget earlier outcomes")
    options = parser.parse_args()
    records = options.output.with_suffix(".jsonl")
    if options.fresh:
        records.unlink(missing_ok=True)
    run(records, options.evaluations)
    given = "" if options.evaluations == 200 else f" --evaluations {options.evaluations}"
    page = report([outcome for outcome in read(records) if outcome.number < options.evaluations], given)
    options.output.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
