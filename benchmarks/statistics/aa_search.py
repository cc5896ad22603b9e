"""An A/A search: every child is a no-op, so whatever gain is reported is luck. Prints what each stage would report.

python -m benchmarks.statistics.aa_search [--seeds 200] [--children 200] [--first-seed 0]

The policy, the archive, the choice of re-measurements and the claim are the shipped ones; only the server is simulated
(`noise.Machine`, with the noise that examples/tiny-llama declares). After the children come the policy's own
re-measurements, one final of the front and the seed, and the claim: ten ABBA pairs of the front's first member against
the seed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.statistics.aa_world import Search, claim
from benchmarks.statistics.noise import Machine
from population.objectives import ObjectiveSet, load_objectives
from vibeserve.claims import LEAST_PAIRS, Claim, Verdict

TARGET = Path(__file__).resolve().parents[2] / "examples" / "tiny-llama" / "objectives.toml"
REMEASUREMENTS = (0, 25, 50, 100)
VERIFIED = 5
"""Members of the front that a cherry-picking user verifies."""
LIMIT = 1.005
"""What an A/A search may claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What one claim says, over its objectives; gains, 1 is none."""

    central: float
    """Largest central value, shown or not."""
    shown: float
    """Largest central value among the objectives that were shown to be better."""
    stated: float
    """Largest gain that the claim states: the end of the interval that is nearer to 1."""
    worse: bool
    """Whether any objective was shown to be worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one A/A run would report; gains over the seed, 1 is none."""

    best_child: float
    """Largest of any child in any objective, as first measured."""
    best: Mapping[int, float]
    """Re-measurements → largest of any front member in any objective."""
    winner: Mapping[int, float]
    """Re-measurements → geometric mean over the objectives of the front's first member but the seed."""
    best_final: float
    winner_final: float
    claims: tuple[Claimed, ...]
    """Of the first members of the front but the seed, at most `VERIFIED`; empty if the seed stands alone."""
    front: int
    scored: int

    @property
    def stated(self) -> float:
        """The run's claimed gain: that of the front's first member."""
        return self.claims[0].stated if self.claims else 1.0

    @property
    def picked(self) -> float:
        """The largest of several claims."""
        return max((c.stated for c in self.claims), default=1.0)


def run(objectives: ObjectiveSet, children: int, seed: int) -> Outcome:
    """One A/A search with all that follows it."""
    search = Search.begun(objectives, seed)
    search.breed(children)
    best_child = max(max(search.gains(member)) for member in search.archive.scored[1:])
    best, winner = {}, {}
    for count in range(max(REMEASUREMENTS) + 1):
        if count in REMEASUREMENTS:
            challengers = search.challengers()
            best[count] = max((max(search.gains(member)) for member in challengers), default=1.0)
            winner[count] = _mean(search.gains(challengers[0])) if challengers else 1.0
        search.remeasure(count)
    challengers, finals = search.challengers(), search.finals()
    return Outcome(
        best_child=best_child,
        best=best,
        winner=winner,
        best_final=max((max(gains) for gains in finals.values()), default=1.0),
        winner_final=_mean(finals[challengers[0]]) if challengers else 1.0,
        claims=tuple(said(claim(objectives, search.machine, member)) for member in challengers[:VERIFIED]),
        front=len(search.archive.front),
        scored=len(search.archive.scored) - 1,
    )


def said(found: Claim) -> Claimed:
    better = [name for name in found.gains if found.verdict(name) is Verdict.BETTER]
    return Claimed(
        central=max(gain.value for gain in found.gains.values()),
        shown=max((found.gains[name].value for name in better), default=1.0),
        stated=max((found.claimed(name) or 1.0 for name in better), default=1.0),
        worse=any(found.verdict(name) is Verdict.WORSE for name in found.gains),
    )


def _mean(gains: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(gains))))


# --- tables -----------------------------------------------------------------------------------------------------------


def spread(name: str, gains: Sequence[float]) -> str:
    """One row, gains in percent."""
    percent = 100 * (np.array(gains) - 1)
    low, median, high = np.percentile(percent, [5, 50, 95])
    return f"| {name} | {median:+.2f} | {percent.mean():+.2f} | {low:+.2f} … {high:+.2f} | {percent.max():+.2f} |"


def table(runs: Sequence[Outcome]) -> str:
    rows: list[tuple[str, Callable[[Outcome], float]]] = [
        ("search: best child in its best objective, as measured", lambda r: r.best_child),
        *((f"search: best front member in its best objective, {n} re-measurements", lambda r, n=n: r.best[n])
          for n in REMEASUREMENTS),
        *((f"search: first front member, mean of objectives, {n} re-measurements", lambda r, n=n: r.winner[n])
          for n in REMEASUREMENTS),
        ("finals: best row in its best objective", lambda r: r.best_final),
        ("finals: first front member, mean of objectives", lambda r: r.winner_final),
        (f"{LEAST_PAIRS} pairs: largest central value, shown or not", lambda r: _first(r).central),
        (f"{LEAST_PAIRS} pairs: largest central value that was shown, else 0", lambda r: _first(r).shown),
        ("**claimed: lower end of what was shown, else 0**", lambda r: r.stated),
        (f"claimed, best of {VERIFIED} verified members", lambda r: r.picked),
    ]  # fmt: skip
    head = "| gain over the seed that a user would be told, % | median | mean | 5 … 95 % of the runs | largest |"
    return "\n".join([head, "|---|---|---|---|---|", *(spread(name, [of(r) for r in runs]) for name, of in rows)])


def _first(outcome: Outcome) -> Claimed:
    return outcome.claims[0] if outcome.claims else Claimed(central=1.0, shown=1.0, stated=1.0, worse=False)


def power(objectives: ObjectiveSet, gain: float, claims: int) -> str:
    """One row: what claims say of a candidate that is truly better in every objective."""
    noise_M = np.array([o.relative_noise for o in objectives])
    found = [claim(objectives, Machine(noise_M, np.random.default_rng([i, 3])), "c", gain) for i in range(claims)]
    cells = []
    for name in objectives.names:
        better = [c for c in found if c.verdict(name) is Verdict.BETTER]
        stated = np.median([c.claimed(name) or 1.0 for c in better]) if better else 1.0
        cells.append(f"{len(better) / claims:.1%} ({100 * (stated - 1):+.1f})")
    return f"| {100 * (gain - 1):+.0f} | {' | '.join(cells)} |"


def report(seeds: range, children: int) -> str:
    """Both tables, and the figure."""
    objectives = load_objectives(TARGET)
    runs = [run(objectives, children, seed) for seed in seeds]
    stated = np.array([r.stated for r in runs]) - 1
    false = sum(r.stated > 1 for r in runs)
    over = sum(r.stated > LIMIT for r in runs)
    reached = stated.mean() <= LIMIT - 1 and np.median(stated) <= LIMIT - 1
    noise = ", ".join(f"{o.name} {o.relative_noise:.0%}" for o in objectives)
    return "\n\n".join(
        [
            f"{len(runs)} searches of {children} children each ({np.mean([r.scored for r in runs]):.0f} scored, front "
            f"of {np.median([r.front for r in runs]):.0f} in the median), noise {noise}, machine drift "
            f"{Machine.DRIFT:.0%}, slow spells in {Machine.SPELLS:.0%} of the measurements.",
            table(runs),
            f"Claimed gain: mean {stated.mean():.3%}, median {np.median(stated):.3%} "
            f"({'within' if reached else 'ABOVE'} the limit of {LIMIT - 1:.1%}). {false} of {len(runs)} runs claim any "
            f"gain, {over} claim more than {LIMIT - 1:.1%}; {sum(_first(r).worse for r in runs)} claim a loss. If "
            f"{VERIFIED} members are verified and the best is quoted, {sum(r.picked > 1 for r in runs)} claim a gain.",
            "### What claims say of a candidate that is better: share shown (median claimed gain, %)",
            "\n".join(
                [
                    f"| true gain, % | {' | '.join(objectives.names)} |",
                    "|---" * (len(objectives) + 1) + "|",
                    *(power(objectives, gain, 10 * len(runs)) for gain in (1.0, 1.02, 1.05, 1.1, 1.2, 1.5)),
                ]
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--children", type=int, default=200)
    options = parser.parse_args()
    started = time.monotonic()
    print(report(range(options.first_seed, options.first_seed + options.seeds), options.children))
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
