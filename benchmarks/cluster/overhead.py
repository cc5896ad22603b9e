"""How much time the framework itself takes for a child: no latency anywhere, everything else real.

`python -m benchmarks.cluster.overhead [--children 200 1000] [--files 2 24] [--output benchmarks/cluster/overhead.md]`

Driver, ledger, repository, Ray executor and workshop are the ones of a run, on a local Ray with as many CPUs as the
machine has; mutator, evaluator and policy take next to no time (`benchmarks/cluster/instant.py`). Before and after each
run, Ray's bare rate is measured on the same Ray: two empty tasks, the second one submitted when the first has ended.
CPU times are the kernel's: of the driver's process with its Ray threads, of all worker processes, of Ray's own (raylet,
control store). The bound is what two cores would do if they did nothing else: 2 s of CPU per second, divided by all CPU
time of a child. The first 5 % of the children are left out, while Ray starts workers.
`--scratch` is the folder (`TMPDIR`) in which the trees of children are written out; the run's folder is on the disk.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cluster.bare import Bare, bare_chains
from benchmarks.cluster.instant import FILES, Site, spread
from benchmarks.cluster.processes import CpuTime, cpu_time

_WARM = 0.05
_MUTATIONS = 4
"""At once: more would only start worker processes, each of which takes a second of CPU."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """One run."""

    children: int
    per_s: float
    bare: tuple[Bare, Bare]
    cpu_ms: tuple[float, float, float]
    """Driver, workers and Ray, per child."""
    first_ms: float
    """Driver CPU per child in the first and, below, in the last tenth of the run."""
    last_ms: float

    @property
    def bare_per_s(self) -> float:
        return sum(bare.chains for bare in self.bare) / sum(bare.wall_s for bare in self.bare)

    @property
    def bare_ms(self) -> tuple[float, float, float]:
        """Driver, workers and Ray, per bare chain."""
        one, two = (bare.cpu.ms_per(bare.chains) for bare in self.bare)
        return ((one[0] + two[0]) / 2, (one[1] + two[1]) / 2, (one[2] + two[2]) / 2)


class Clock:
    """Wall and CPU time at every count of children; that of all processes at two counts."""

    def __init__(self, first: int, last: int) -> None:
        self._ends = (first, last)
        self.marks: dict[int, tuple[float, float]] = {}
        self.all: list[tuple[int, CpuTime]] = []

    def __call__(self, count: int) -> None:
        if count not in self.marks:
            self.marks[count] = (time.perf_counter(), time.process_time())
            if len(self.all) < len(self._ends) and count >= self._ends[len(self.all)]:
                self.all.append((count, cpu_time()))

    def between(self, first: int, last: int) -> tuple[float, float, int]:
        """Wall s, CPU s and children between two counts, or those nearest after them."""
        counts = sorted(self.marks)
        low = next(count for count in counts if count >= first)
        high = max(count for count in counts if count <= last)
        (wall, cpu), (wall_2, cpu_2) = self.marks[low], self.marks[high]
        return wall_2 - wall, cpu_2 - cpu, max(1, high - low)


def measured(children: int, files: int, folder: Path, profile: Path | None) -> Found:
    """One run of so many children of so many files, on a Ray of its own."""
    from vibeserve.cluster.connection import connect
    from vibeserve.cluster.placement import Placement
    from vibeserve.cluster.ray_executor import RayExecutor
    from vibeserve.cluster.selectors import Demand

    connect(None)
    site, clock = Site.make(folder, cpus=1, files=files), Clock(int(_WARM * children), children)
    executor: Any = _KeepsRay(RayExecutor(site.kit, Placement(Demand(cpus=1))))
    executor.warm(_MUTATIONS + 2)
    before = bare_chains()
    watch = cProfile.Profile() if profile is not None else None
    if watch is not None:
        watch.enable()
    site.drive(executor, children, _MUTATIONS, clock)
    if watch is not None and profile is not None:
        watch.disable()
        with profile.open("w", encoding="utf-8") as file:
            pstats.Stats(watch, stream=file).sort_stats("tottime").print_stats(60)
    after = bare_chains()
    executor.end()
    wall_s, _, count = clock.between(int(_WARM * children), children)
    _, first_s, first = clock.between(int(_WARM * children), int((_WARM + 0.1) * children))
    _, last_s, last = clock.between(int(0.9 * children), children)
    (begun, cpu), (ended, cpu_2) = clock.all
    return Found(
        children=children,
        per_s=count / wall_s,
        bare=(before, after),
        cpu_ms=(cpu_2 - cpu).ms_per(ended - begun),
        first_ms=1000 * first_s / first,
        last_ms=1000 * last_s / last,
    )


class _KeepsRay:
    """An executor whose `close` leaves Ray running, so that the bare rate is measured in the same one."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def close(self) -> None:
        """Later."""

    def end(self) -> None:
        """Now."""
        self._inner.close()


_HEAD = (
    "| children | files of each | children/s | Ray's bare chains/s | ratio | driver CPU ms | workers | Ray's own "
    "| bound /s | bare: driver | workers | Ray's own | bound /s | driver, first tenth | last tenth |"
)


def row(children: int, files: int, runs: list[Found]) -> str:
    """A line of the table: CPU times are ms per child, or per bare chain."""
    cells = [f"{children:,}", str(files)]
    cells += [spread([r.per_s for r in runs], 0), spread([r.bare_per_s for r in runs], 0)]
    cells += [spread([r.per_s / r.bare_per_s for r in runs], 2)]
    for found in ([r.cpu_ms for r in runs], [r.bare_ms for r in runs]):
        cells += [spread([ms[i] for ms in found], 1) for i in range(3)]
        cells += [spread([2000 / sum(ms) for ms in found], 0)]
    cells += [spread([r.first_ms for r in runs], 1), spread([r.last_ms for r in runs], 1)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--children", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--files", type=int, nargs="+", default=[2, FILES], help="modules of a candidate")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--scratch", type=Path, help="where trees are written out; default: the system's choice")
    parser.add_argument("--profile", type=Path, help="write where the driver's time goes here, of the last run")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/cluster/overhead.md"))
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = " ".join(["python -m benchmarks.cluster.overhead", *sys.argv[1:]])
    text = ["# Framework time per child", "", (__doc__ or "").split("\n\n", 2)[2].strip(), "", f"`{command}`", ""]
    text += [_HEAD, "|---" * (_HEAD.count(" | ") + 1) + "|"]
    print("\n".join(text), flush=True)
    with tempfile.TemporaryDirectory(prefix="vibeserve-overhead-") as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        if options.scratch is not None:
            os.environ["TMPDIR"] = tempfile.tempdir = str(options.scratch.resolve(strict=True))
        for children, files in [(children, files) for files in options.files for children in options.children]:
            runs = [
                measured(children, files, Path(folder) / f"{children}-{files}-{repeat}", options.profile)
                for repeat in range(options.repeats)
            ]
            text.append(row(children, files, runs))
            print(text[-1], flush=True)
    options.output.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
