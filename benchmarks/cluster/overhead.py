"""How much time the framework itself takes for a child: no latency anywhere, everything else real.

`python -m benchmarks.cluster.overhead [--children 200 1000] [--parts] [--output benchmarks/cluster/overhead.md]`

Driver, ledger, repository, Ray executor and workshop are the ones of a run, on a local Ray with as many CPUs as the
machine has; mutator, evaluator and policy take next to no time (`benchmarks/cluster/instant.py`). Before and after each
run, Ray's bare rate is measured on the same workers: two empty tasks, the second one submitted when the first has
ended. Driver CPU is `time.process_time` of the driver's process, its Ray threads among it. The first 5 % of the
children are left out, while Ray starts workers. `--parts` says what one child costs in repository and ledger alone.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cluster.instant import FILES, Scribbler, Site, spread
from population.candidate import Operator, Proposal, candidate_id
from population.events import Faulted

_CHAINS = 300
_IN_FLIGHT = 8
_WARM = 0.05
_MUTATIONS = 4
"""At once: more would only start worker processes, each of which takes a second of CPU."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """One run."""

    children: int
    per_s: float
    bare_per_s: float
    driver_ms: float
    first_ms: float
    """Driver CPU per child in the first and, below, in the last tenth of the run."""
    last_ms: float


class Clock:
    """Wall and CPU time at every count of children."""

    def __init__(self) -> None:
        self.marks: dict[int, tuple[float, float]] = {}

    def __call__(self, count: int) -> None:
        if count not in self.marks:
            self.marks[count] = (time.perf_counter(), time.process_time())

    def between(self, first: int, last: int) -> tuple[float, float, int]:
        """Wall s, CPU s and children between two counts, or those nearest after them."""
        counts = sorted(self.marks)
        low = next(count for count in counts if count >= first)
        high = max(count for count in counts if count <= last)
        (wall, cpu), (wall_2, cpu_2) = self.marks[low], self.marks[high]
        return wall_2 - wall, cpu_2 - cpu, max(1, high - low)


def bare_rate(chains: int = _CHAINS) -> float:
    """Chains of two empty tasks per second, a few at once."""
    import ray

    first: Any = ray.remote(num_cpus=0, max_retries=0)(_nothing)
    second: Any = ray.remote(num_cpus=1, max_retries=0)(_nothing)
    ray.get([second.remote(0) for _ in range(20)] + [first.remote(0) for _ in range(20)])
    running: dict[Any, bool] = {}
    started, begun, ended = time.perf_counter(), 0, 0
    while ended < chains:
        while begun < chains and len(running) < _IN_FLIGHT:
            running[first.remote(begun)] = False
            begun += 1
        ready, _ = ray.wait(list(running), num_returns=1, timeout=10)
        ready, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
        for ref in ready:
            if running.pop(ref):
                ray.get(ref)
                ended += 1
            else:
                running[second.remote(ray.get(ref))] = True
    return chains / (time.perf_counter() - started)


def _nothing(value: int) -> int:
    return value


def measured(children: int, files: int, folder: Path, profile: Path | None) -> Found:
    """One run of so many children of so many files, on a Ray of its own."""
    from vibeserve.cluster.connection import connect
    from vibeserve.cluster.placement import Placement
    from vibeserve.cluster.ray_executor import RayExecutor
    from vibeserve.cluster.selectors import Demand

    connect(None)
    site, clock = Site.make(folder, cpus=1, files=files), Clock()
    before = bare_rate()
    executor: Any = _KeepsRay(RayExecutor(site.kit, Placement(Demand(cpus=1))))
    executor.warm(_MUTATIONS + 2)
    watch = cProfile.Profile() if profile is not None else None
    if watch is not None:
        watch.enable()
    site.drive(executor, children, _MUTATIONS, clock)
    if watch is not None and profile is not None:
        watch.disable()
        with profile.open("w", encoding="utf-8") as file:
            pstats.Stats(watch, stream=file).sort_stats("tottime").print_stats(60)
    after = bare_rate()
    executor.end()
    wall_s, cpu_s, count = clock.between(int(_WARM * children), children)
    _, first_s, first = clock.between(int(_WARM * children), int((_WARM + 0.1) * children))
    _, last_s, last = clock.between(int(0.9 * children), children)
    return Found(
        children=children,
        per_s=count / wall_s,
        bare_per_s=(before + after) / 2,
        driver_ms=1000 * cpu_s / count,
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


def parts(folder: Path, count: int = 100) -> list[str]:
    """What a child costs outside of Ray: CPU and wall ms of each step in this process, one at a time and in tens."""
    site = Site.make(folder / "hub", cpus=1)
    worker = type(site.repository).cache(folder / "cache.git")
    worker.absorb(site.kit.seed_delta)
    rows: dict[str, tuple[float, float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        spent = rows.get(name, (0.0, 0.0))
        rows[name] = (spent[0] + time.perf_counter() - wall, spent[1] + time.process_time() - cpu)
        return result

    with site.records() as records:
        deltas = []
        for number in range(1, count + 1):
            tree = folder / f"tree{number}"
            timed("export (worker)", lambda tree=tree: worker.export(site.root.commit, tree))
            proposal = Proposal(number=number, operator=Operator.TUNE, parents=(candidate_id(0),))
            Scribbler().mutate(tree, proposal, "")
            made = timed(
                "commit_tree (worker)",
                lambda tree=tree, number=number: worker.commit_tree(
                    tree, parents=(site.root.commit,), message="m", number=number
                ),
            )
            deltas.append((made.sha, timed("delta (worker)", lambda made=made: worker.delta(made.sha))))
        half = count // 2
        for number, (sha, delta) in enumerate(deltas[:half], start=1):
            timed("absorb + set_ref (driver)", lambda n=number, s=sha, d=delta: _store(site, [(n, s, d)]))
            timed("read_files (driver)", lambda s=sha: site.repository.read_files(s, "*.toml"))
            timed("append of 4 events (driver)", lambda: [records.ledger.append(_event()) for _ in range(4)])
        for start in range(half, count, 10):
            tens = [(n + 1, *deltas[n]) for n in range(start, min(start + 10, count))]
            timed("absorb + set_ref (driver), ten at once", lambda tens=tens: _store(site, tens))
            timed("append_all of 4 events (driver), ten at once", lambda: records.ledger.append_all([_event()] * 40))
    counts = {name: count if "worker" in name else count - half if "ten" in name else half for name in rows}
    return [
        f"| {n} | {1000 * cpu / counts[n]:.2f} | {1000 * wall / counts[n]:.2f} |" for n, (wall, cpu) in rows.items()
    ]


def _store(site: Site, made: list[tuple[int, str, bytes]]) -> None:
    with site.repository.batch():
        for number, sha, delta in made:
            site.repository.absorb(delta)
            site.repository.set_ref(candidate_id(number), sha)


def _event() -> Faulted:
    return Faulted(key=candidate_id(1), reason="x" * 200, attempt=1)


_HEAD = (
    "| children | files of each | children/s | Ray's bare chain /s | ratio | driver CPU ms per child | first tenth "
    "| last tenth |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--children", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--files", type=int, nargs="+", default=[2, FILES], help="modules of a candidate")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--parts", action="store_true", help="repository and ledger alone, without Ray")
    parser.add_argument("--profile", type=Path, help="write where the driver's time goes here, of the last run")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/cluster/overhead.md"))
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = " ".join(["python -m benchmarks.cluster.overhead", *sys.argv[1:]])
    text = ["# Framework time per child", "", (__doc__ or "").split("\n\n", 2)[2].strip(), "", f"`{command}`", ""]
    with tempfile.TemporaryDirectory(prefix="vibeserve-overhead-") as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        if options.parts:
            text += [
                "| step | CPU ms per child | wall ms per child |",
                "|---|---|---|",
                *parts(Path(folder) / "parts"),
                "",
            ]
        else:
            text += [_HEAD, "|---" * _HEAD.count(" | ") + "|---|"]
        print("\n".join(text), flush=True)
        cases = [(children, files) for files in options.files for children in options.children]
        for children, files in () if options.parts else cases:
            runs = [
                measured(children, files, Path(folder) / f"{children}-{files}-{repeat}", options.profile)
                for repeat in range(options.repeats)
            ]
            cells = [f"{children:,}", str(files)]
            cells += [spread([r.per_s for r in runs], 0), spread([r.bare_per_s for r in runs], 0)]
            cells += [spread([r.per_s / r.bare_per_s for r in runs], 2), spread([r.driver_ms for r in runs], 1)]
            cells += [spread([r.first_ms for r in runs], 1), spread([r.last_ms for r in runs], 1)]
            text.append(f"| {' | '.join(cells)} |")
            print(text[-1], flush=True)
    options.output.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
