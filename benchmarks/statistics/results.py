"""Writes results.md beside it: the coverage of intervals, and what an A/A search reports.

python -m benchmarks.statistics.results [--trials 20000] [--seeds 200] [--children 200]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.statistics import aa_search, coverage

PAGE = """# Honest statistics, measured

Written by `python -m benchmarks.statistics.results{options}`.
Everything is seeded, so it comes out the same again. What the numbers are for is in
[docs/measurement.md](../../docs/measurement.md).

## An A/A search

Every child is a no-op, so every gain below is luck. `python -m benchmarks.statistics.aa_search`. The first rows are
what an engine would report that trusts its best sample; the bold row is what `vibeserve verify` lets one quote.

{aa}

A claim is wrong in at most one of 20 cases for all its objectives together, half of these on the side of a gain; then
it states the lower end of an interval that just missed 1. That bound holds for *one* claim: whoever verifies several
members and quotes the best has as many chances (the last row of the first table), so choose first, then verify.

## Coverage of 95 % intervals

`python -m benchmarks.statistics.coverage`

{coverage}

What holds: with log-normal noise every cell is within 93 to 97 %, from n = 4 on whatever noise was declared; so are,
from eight pairs on, paired ratios under every kind of noise and drift tried (a claim needs ten). What does not:

- At two to five pairs, where an effect of coming second is not yet taken out, intervals cover up to 97.5 %.
- At n = 1 to 3 the interval is as good as the declared noise; declared too low it covers too little, too high too much.
- One-sided tails: a mean of 5 to 20 strongly skewed values is not normal, and no interval from so few values that has
  not seen the tail can know of it. Paired ratios do not suffer: a difference of two like values is symmetric.
- Where measurements fail (inf), nothing is known of a failing server from two or three measurements that all failed.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20000)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--children", type=int, default=200)
    options = parser.parse_args()
    asked = "".join(f" --{name} {value}" for name, value in vars(options).items() if value != parser.get_default(name))
    page = PAGE.format(
        options=asked,
        aa=aa_search.report(range(options.seeds), options.children),
        coverage=coverage.report(options.trials),
    )
    (Path(__file__).parent / "results.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
