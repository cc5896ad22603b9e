"""Counts how often 95 % intervals hold the true value, in seeded simulations, and prints the tables as markdown.

python -m benchmarks.statistics.coverage [--trials 20000]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.statistics.bootstraps import METHODS
from benchmarks.statistics.noise import NORMAL, SERIES, SHAPES, FloatArray, Series, Shape
from population.statistics import Estimate, estimate, paired_ratio

SIZES = (1, 2, 3, 5, 8, 10, 19, 20, 30, 50)
PAIRS = (2, 3, 5, 8, 10, 19, 20, 30, 50)
SIGMA = 0.05
CENTRE = 40.0
BOOTSTRAP_TRIALS = 4000
"""A bootstrap costs milliseconds."""
OBJECTIVES = 3


def trials_for(n: int, trials: int) -> int:
    return trials if n < 20 else min(trials, BOOTSTRAP_TRIALS)


def share(hits: Sequence[bool]) -> float:
    return float(np.mean(hits))


def holds(found: Estimate, truth: float) -> bool:
    """Whether the interval has the true value; the two may differ by rounding where both are exact."""
    return found.low <= truth * (1 + 1e-12) and truth * (1 - 1e-12) <= found.high


def of_estimate(shape: Shape, n: int, trials: int, declared: float = 1.0) -> float:
    """Coverage of `estimate` with the declared noise `declared` times the true one."""
    rows = CENTRE * np.exp(SIGMA * shape.draw(np.random.default_rng([n, 11]), (trials, n)))
    return share([holds(estimate(row, declared * SIGMA), CENTRE) for row in rows.tolist()])


def of_failures(n: int, trials: int, failing: float) -> float:
    """Coverage of the median by `estimate` when a share of the measurements is infinite; rows without one count too.

    The median of the mixture is the 0.5 / (1 - failing) quantile of the finite measurements.
    """
    rng = np.random.default_rng([n, 12])
    rows = CENTRE * np.exp(SIGMA * rng.standard_normal((trials, n)))
    rows[rng.random((trials, n)) < failing] = math.inf
    middle = CENTRE * math.exp(SIGMA * _normal_quantile(0.5 / (1 - failing)))
    return share([holds(estimate(row, SIGMA), middle) for row in rows.tolist() if math.inf in row])


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)


def sides(series: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Successive measurements (T, 2n) of AB BA AB … as those of A and of B, each (T, n)."""
    pairs = series.reshape(len(series), -1, 2)
    swapped = (np.arange(pairs.shape[1]) % 2).astype(bool)
    return np.where(swapped, pairs[:, :, 1], pairs[:, :, 0]), np.where(swapped, pairs[:, :, 0], pairs[:, :, 1])


def of_pairs(series: Series, n: int, trials: int) -> float:
    """Coverage of `paired_ratio` for a true ratio of 1.1, one objective."""
    ours, theirs = sides(series(np.random.default_rng([n, 13]), trials, 2 * n))
    rows = zip(np.exp(SIGMA * ours + math.log(1.1)).tolist(), np.exp(SIGMA * theirs).tolist(), strict=True)
    return share([holds(paired_ratio(a, b), 1.1) for a, b in rows])


def together(n: int, trials: int, common: float) -> tuple[float, float]:
    """Joint coverage of three objectives' intervals as claims make them, and of three plain 95 % intervals.

    `common`: correlation of the objectives' noise.
    """
    rng = np.random.default_rng([n, 14, int(100 * common)])
    shared = rng.standard_normal((1, trials, 2 * n))
    own = rng.standard_normal((OBJECTIVES, trials, 2 * n))
    noise = SIGMA * (math.sqrt(common) * shared + math.sqrt(1 - common) * own)
    claimed, plain = np.ones(trials, bool), np.ones(trials, bool)
    for series in noise:
        ours, theirs = (np.exp(side).tolist() for side in sides(series))
        for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            claimed[row] &= holds(paired_ratio(a, b, OBJECTIVES), 1.0)
            plain[row] &= holds(paired_ratio(a, b), 1.0)
    return float(claimed.mean()), float(plain.mean())


def of_method(method: Callable[[FloatArray], tuple[float, float]], shape: Shape, n: int, trials: int) -> float:
    """Coverage of the mean by another interval."""
    rows = shape.draw(np.random.default_rng([n, 15]), (trials, n))
    return share([low <= 0 <= high for low, high in map(method, rows)])


# --- tables -----------------------------------------------------------------------------------------------------------


def table(head: str, columns: Sequence[object], rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Percentages as markdown."""
    lines = [f"| {head} | {' | '.join(map(str, columns))} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{100 * value:.1f}' for value in values)} |" for name, values in rows]
    return "\n".join(lines)


def report(trials: int) -> str:
    """All tables; `trials` per cell below n = 20, 4,000 at most above."""
    right = [(s.name, [of_estimate(s, n, trials_for(n, trials)) for n in SIZES]) for s in SHAPES]
    wrong = [(f"{d:g}", [of_estimate(NORMAL, n, trials, d) for n in SIZES[:7]]) for d in (0.5, 0.75, 1.0, 1.5, 2.0)]
    pairs = [(name, [of_pairs(series, n, trials) for n in PAIRS]) for name, series in SERIES.items()]
    joint = {c: [together(n, trials // 2, c) for n in (10, 20)] for c in (0.0, 0.5, 0.9)}
    joined = [(f"{c:g}", [cell for pair in cells for cell in pair]) for c, cells in joint.items()]
    failures = [
        (f"{f:.0%}", [of_failures(n, trials_for(n, trials), f) for n in SIZES[1:]]) for f in (0.05, 0.1, 0.2, 0.4)
    ]
    methods = [
        (f"{name}, {shape.name}", [of_method(method, shape, n, BOOTSTRAP_TRIALS // 2) for n in (20, 30, 50)])
        for shape in SHAPES
        for name, method in METHODS.items()
    ]
    return "\n\n".join(
        [
            f"Percent of intervals that hold the true value; {trials:,} trials a cell below n = 20 (standard error "
            f"{100 * math.sqrt(0.95 * 0.05 / trials):.2f} points), {trials_for(20, trials):,} above "
            f"({100 * math.sqrt(0.95 * 0.05 / trials_for(20, trials)):.2f}).",
            "### One server, declared noise right",
            table("noise \\ n", SIZES, right),
            "### One server, log-normal, declared noise wrong by a factor",
            table("declared / true \\ n", SIZES[:7], wrong),
            "### One server, a share of the measurements fails (inf): the median",
            table("failing \\ n", SIZES[1:], failures),
            "### Paired ratios in ABBA order, one objective",
            table("noise \\ pairs", PAIRS, pairs),
            "### Three objectives together, by the correlation of their noise",
            table("correlation", ("claims, 10 pairs", "plain, 10", "claims, 20", "plain, 20"), joined),
            "### Other intervals for n of 20 and more (shipped: expanded percentile)",
            table("method, noise \\ n", (20, 30, 50), methods),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20000)
    print(report(parser.parse_args().trials))


if __name__ == "__main__":
    main()
