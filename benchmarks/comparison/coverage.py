"""Counts how often the intervals of a comparison hold the true figures, in seeded simulations; prints markdown.

python -m benchmarks.comparison.coverage [--trials 300]

Two runs of 12 servers each with known values of three objectives, on random trade-offs, the second run shifted by a
random factor. Every server is measured n times with normal noise of the logarithms, the fronts are chosen by these
measurements as in a run, and compared. Truth is the same figure of the same members without noise: luck of choosing
them is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from population import dominance
from population.objectives import Direction, Objective
from population.statistics import Estimate, estimate
from search.comparison import INDICATORS, bootstrap, contributions, qualities, shared_scale
from search.resampling import draw_costs, interval

FloatArray = npt.NDArray[np.float64]
Ends = Callable[[float, FloatArray], tuple[float, float]]

DECLARED = 0.06
OBJECTIVES = tuple(Objective(name=n, direction=Direction.MIN, relative_noise=DECLARED) for n in ("a", "b", "c"))
SERVERS = 12
DRAWS = 200
SHIFT = 0.1
COLUMNS = ("hypervolume", "IGD+", "ε+", "ε×", "contribution", "of a member")
"""`INDICATORS`, and the contribution of one member."""
CASES = ((1, 0.06), (2, 0.06), (3, 0.06), (5, 0.06), (5, 0.02), (10, 0.06))
"""Repeats and true noise."""


def percentile(value: float, drawn: FloatArray) -> tuple[float, float]:
    found = interval(value, drawn)
    return found.low, found.high


def reflected(value: float, drawn: FloatArray) -> tuple[float, float]:
    """The basic bootstrap, which is not used; for comparison."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(2 * value - high), float(2 * value - low)


METHODS: dict[str, Ends] = {"percentiles (used)": percentile, "reflected": reflected}


def true_costs(rng: np.random.Generator, shift: float) -> FloatArray:
    """Servers on a trade-off: what is good in one objective is bad in another."""
    return np.asarray(np.log(0.1 + rng.dirichlet([1, 1, 1], SERVERS)) + shift, dtype=np.float64)


def measured(true: FloatArray, n: int, noise: float, rng: np.random.Generator) -> list[dict[str, tuple[float, ...]]]:
    return [
        {o.name: tuple(np.exp(row[m] + noise * rng.standard_normal(n))) for m, o in enumerate(OBJECTIVES)}
        for row in true
    ]


def front(known: Sequence[dict[str, Estimate]]) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    value, low, high = (
        np.array([[o.cost(getattr(e[o.name], end)) for o in OBJECTIVES] for e in known])
        for end in ("value", "low", "high")
    )
    return value, dominance.front(dominance.Points(value, low, high))


def trial(n: int, noise: float, rng: np.random.Generator, hits: dict[str, FloatArray]) -> None:
    """Adds to `hits` (of a front or of a difference, of each column) what this comparison's intervals hold."""
    sets, truths, drawn = [], [], []
    for shift in (0.0, float(rng.normal(0, SHIFT))):
        true = true_costs(rng, shift)
        samples = measured(true, n, noise, rng)
        known = [{o.name: estimate(s[o.name], DECLARED) for o in OBJECTIVES} for s in samples]
        value, members = front(known)
        sets.append(value[members])
        truths.append(true[members])
        draws = [draw_costs(OBJECTIVES, samples[i], known[i], DRAWS, rng) for i in members]
        drawn.append(np.stack(draws, axis=1))
    scale = shared_scale(sets)
    values, truth = qualities(sets, scale), qualities(truths, scale)
    spread = bootstrap(drawn, lambda fronts: qualities(fronts, scale))
    gains, true_gains = contributions(sets, scale)[0], contributions(truths, scale)[0]
    gain_spread = bootstrap(drawn, lambda fronts: contributions(fronts, scale)[0])
    for name, ends in METHODS.items():
        for row in range(len(INDICATORS)):
            low, high = ends(float(values[row, 0]), spread[:, row, 0])
            hits[name][0, row] += low <= truth[row, 0] <= high
            low, high = ends(float(values[row, 1] - values[row, 0]), spread[:, row, 1] - spread[:, row, 0])
            hits[name][1, row] += low <= truth[row, 1] - truth[row, 0] <= high
        held = [ends(float(gain), drawn_gain) for gain, drawn_gain in zip(gains, gain_spread.T, strict=True)]
        hits[name][0, -1] += np.mean([low <= gain <= high for (low, high), gain in zip(held, true_gains, strict=True)])
        hits[name][1, -1] = np.nan


def table(trials: int) -> list[str]:
    header = ["n", "noise", "interval", "of", *COLUMNS]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for n, noise in CASES:
        rng = np.random.default_rng(n)
        hits = {name: np.zeros((2, len(COLUMNS))) for name in METHODS}
        for _ in range(trials):
            trial(n, noise, rng, hits)
        for name, counts in hits.items():
            for place, what in enumerate(("a front", "the difference of two")):
                shares = ["" if np.isnan(count) else f"{100 * count / trials:.1f}" for count in counts[place]]
                lines.append("| " + " | ".join([str(n), f"{noise:.0%}".replace("%", " %"), name, what, *shares]) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    trials = parser.parse_args().trials
    print(
        f"Share (%) of {trials} simulated comparisons whose 95 % interval holds the true figure; declared noise 6 %.\n"
    )
    print("\n".join(table(trials)))


if __name__ == "__main__":
    main()
