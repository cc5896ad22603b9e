"""Search quality at equal evaluations: our default policy against NSGA-II, random search and OpenEvolve's database.

    python -m benchmarks.cluster.quality run OUT [--seeds 10] [--part 0/2] [--openevolve /tmp/oevenv/bin/python]
    python -m benchmarks.cluster.quality report OUT

`run` appends one JSON line per run to OUT/runs-PART.jsonl and leaves out what is there already, so that it can be
stopped at any time and continued; several parts may run side by side. `report` prints the tables as markdown and writes
OUT/attainment.png. OpenEvolve needs a Python of its own:

    python3 -m venv /tmp/oevenv && /tmp/oevenv/bin/pip install openevolve==0.4.0
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.cluster.quality.contestants import ON_PROBLEMS, OPENEVOLVE
from benchmarks.cluster.quality.database import Database
from benchmarks.cluster.quality.measure import GRID, Job, Result, measure, result
from benchmarks.cluster.quality.plots import write_plot
from benchmarks.cluster.quality.tables import tables

SPACES = ("zdt1", "zdt2", "zdt3", "dtlz2", "wfg4", "wfg9", GRID)
CHILDREN = {10: 200, 100: 400, 1000: 1500}
"""Slots → budget of a test problem."""
GRID_CHILDREN = {10: 100, 100: 400, 1000: 1500}
FIRST_SEED = 300
"""Seeds below were looked at while the search was worked on, and are left out."""


def jobs(seeds: Iterable[int], spaces: list[str], contestants: list[str], slots: list[int]) -> Iterator[Job]:
    """Seed by seed, so that a table of what is there so far compares like with like."""
    for seed in seeds:
        for count in slots:
            for space in spaces:
                for contestant in contestants:
                    yield Job(space=space, contestant=contestant, slots=count, children=budget(space, count), seed=seed)


def budget(space: str, slots: int) -> int:
    """Children of a run."""
    return (GRID_CHILDREN if space == GRID else CHILDREN)[slots]


def recorded(folder: Path) -> dict[Job, Result]:
    lines = [line for path in sorted(folder.glob("runs-*.jsonl")) for line in path.read_text().splitlines()]
    return {found.job: found for found in map(result, map(json.loads, lines))}


def run(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    part, parts = (int(number) for number in options.part.split("/"))
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    planned = list(jobs(seeds, options.space, options.contestant, options.slots))
    done = recorded(options.out)
    waiting = [job for at, job in enumerate(planned) if at % parts == part and job not in done]
    started_s = time.monotonic()
    with ExitStack() as stack, (options.out / f"runs-{part}.jsonl").open("a") as file:
        needed = any(job.contestant == OPENEVOLVE for job in waiting)
        database = stack.enter_context(Database(options.openevolve)) if needed else None
        for count, job in enumerate(waiting):
            if time.monotonic() - started_s > options.seconds:
                print(f"stopped after {options.seconds:.0f} s: {len(waiting) - count} runs are left")
                return
            found = measure(job, database)
            file.write(json.dumps(found.plain()) + "\n")
            file.flush()
            print(
                f"{job.space} {job.contestant}, {job.slots} slots, seed {job.seed}: {found.found[-1]:.3f}", flush=True
            )


def report(options: argparse.Namespace) -> None:
    """Of runs with today's budgets."""
    results = [
        found
        for job, found in recorded(options.out).items()
        if job.seed >= options.first_seed and job.children == budget(job.space, job.slots)
    ]
    print(tables(results))
    picture = options.out / "attainment.png"
    write_plot(picture, results)
    print(f"\nattainment surfaces: {picture}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="measure what is missing")
    runner.add_argument("out", type=Path)
    runner.add_argument("--seeds", type=int, default=10)
    runner.add_argument("--first-seed", type=int, default=FIRST_SEED)
    runner.add_argument("--space", nargs="+", default=list(SPACES), choices=SPACES)
    runner.add_argument("--contestant", nargs="+", default=list(ON_PROBLEMS), choices=list(ON_PROBLEMS))
    runner.add_argument("--slots", nargs="+", type=int, default=list(CHILDREN), choices=list(CHILDREN))
    runner.add_argument("--part", default="0/1", help="K/N: every N-th run, from the K-th")
    runner.add_argument("--seconds", type=float, default=280.0, help="no run is begun after this")
    runner.add_argument("--openevolve", type=Path, default=Path("/tmp/oevenv/bin/python"))
    runner.set_defaults(command=run)
    reporter = commands.add_parser("report", help="tables and attainment surfaces of what is there")
    reporter.add_argument("out", type=Path)
    reporter.add_argument("--first-seed", type=int, default=FIRST_SEED)
    reporter.set_defaults(command=report)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
