"""What a child costs in repository and ledger alone, without Ray: each step in this process.

`python -m benchmarks.cluster.overhead_parts [--files 24] [--output benchmarks/cluster/overhead_parts.md]`
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cluster.instant import FILES, Scribbler, Site
from population.candidate import Operator, Proposal, candidate_id
from population.events import Faulted


def parts(folder: Path, files: int, count: int = 100) -> list[str]:
    """What a child costs outside of Ray: CPU and wall ms of each step in this process, one at a time and in tens."""
    site = Site.make(folder / "hub", cpus=1, files=files)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=FILES, help="modules of a candidate")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/cluster/overhead_parts.md"))
    options = parser.parse_args()
    command = " ".join(["python -m benchmarks.cluster.overhead_parts", *sys.argv[1:]])
    head = ["# Repository and ledger per child", "", f"`{command}`, {options.files} modules", ""]
    with tempfile.TemporaryDirectory(prefix="vibeserve-parts-") as folder:
        rows = parts(Path(folder) / "parts", options.files)
    text = [*head, "| step | CPU ms per child | wall ms per child |", "|---|---|---|", *rows]
    print("\n".join(text))
    options.output.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
