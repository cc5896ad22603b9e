"""How busy one driver keeps many evaluation slots: the real driver, flow, ledger and archive on a simulated cluster.

`python -m benchmarks.cluster.slots [--slots 1024] [--rounds 20] [--repeats 3] [--output benchmarks/cluster/slots.md]`

Stage times are those of the peers' workload (log-normal; mutation median 1, sigma 0.8; evaluation median 0.5, sigma
0.3) times `--unit-s`. Time is virtual, but the driver's own CPU time counts in it, second for second; while it thinks,
slots run dry. Nothing is stored in git, the ledger is not synced, and the policy is a constant, because those have
benchmarks of their own. Busy is measured from the first mutation to the last evaluation, and in the steady state: from
when a quarter of them have begun until the last child was proposed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.simulated import SimulatedCluster, Workload, busy, rules_for, simulate, steady


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one run amounts to."""

    busy: float
    steady: float
    driver_ms: float
    """CPU time of the driver per child."""
    mutations: int
    """Most mutations at once."""


def measured(slots: int, children: int, workload: Workload, thinking: float) -> Found:
    cluster = SimulatedCluster(slots, workload, thinking)
    with tempfile.TemporaryDirectory(prefix="vibeserve-slots-") as folder:
        simulate(cluster, Path(folder), rules_for(children))
    del cluster.begun[0]  # the seed's comes before
    last_s = max(begin + workload.evaluation_s(key) for key, begin in cluster.begun)
    thought = [(begin, begin + workload.mutation_s(key)) for key, begin in cluster.mutations]
    return Found(
        busy=busy(cluster, cluster.mutations[0][1], last_s),
        steady=busy(cluster, *steady(cluster)),
        driver_ms=1000 * cluster.driver_s / children,
        mutations=_most(thought),
    )


def _most(spans: Sequence[tuple[float, float]]) -> int:
    changes = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    return max(itertools.accumulate(change for _, change in changes))


def rows(options: argparse.Namespace) -> list[str]:
    """One row for each number of slots and length of a mutation."""
    found = []
    for slots in options.slots:
        for mutation in options.mutations:
            runs = [
                measured(
                    slots,
                    slots * options.rounds,
                    Workload(seed=seed, unit_s=options.unit_s, mutation=mutation),
                    options.thinking,
                )
                for seed in range(options.repeats)
            ]
            medians = f"{options.unit_s * mutation:g} / {options.unit_s * 0.5:g}"
            cells = [f"{slots:,}", medians, f"{slots * options.rounds:,}"]
            cells += [_spread([getattr(run, name) for run in runs], digits) for name, digits in _COLUMNS.items()]
            found.append(f"| {' | '.join(cells)} |")
            print(found[-1], flush=True)
    return found


_HEAD = (
    "| slots | median s of mutation / evaluation | children | busy, steady | busy, all | driver ms per child "
    "| most mutations |"
)
_COLUMNS = {"steady": 3, "busy": 3, "driver_ms": 2, "mutations": 0}


def _spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = (f"{v:.{digits}f}" for v in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=[8, 128, 1024])
    parser.add_argument("--mutations", type=float, nargs="+", default=[0.1, 1.0, 4.0], help="medians, in units")
    parser.add_argument("--rounds", type=int, default=20, help="children per slot")
    parser.add_argument("--unit-s", type=float, default=60.0, help="virtual seconds of one unit of the workload")
    parser.add_argument("--thinking", type=float, default=1.0, help="virtual seconds per CPU second of the driver")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/cluster/slots.md"))
    options = parser.parse_args()
    table = "\n".join([_HEAD, "|" + "---|" * _HEAD.count(" | ") + "---|", *rows(options)])
    command = (
        f"python -m benchmarks.cluster.slots --slots {' '.join(map(str, options.slots))} "
        f"--mutations {' '.join(map(str, options.mutations))} --rounds {options.rounds} "
        f"--unit-s {options.unit_s:g} --thinking {options.thinking:g} --repeats {options.repeats}"
    )
    method = (__doc__ or "").split("\n\n", 2)[2].strip()
    text = f"# Slots kept busy\n\n{method}\n\nMedian (range) over seeds. `{command}`\n\n{table}\n"
    options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
