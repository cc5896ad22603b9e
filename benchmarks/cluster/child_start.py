"""How long a child takes to start on a warm node, in a repository of many candidates.

`python -m benchmarks.cluster.child_start [--candidates 10000] [--children 200] [--output FILE.md]`

A repository of so many candidates is made as a run would have made it (`benchmarks/cluster/instant.py`): each with its
own commit, delta and ref. A node is warm when its clone has the kit and the lineages of all but the last children. Then
children start one by one: the driver makes the task (chain of deltas from the seed to the parent), Ray brings it to a
worker on another process, and the workshop fetches what its clone lacks, absorbs it and exports the workspace. The
parents are candidates that this node has not seen, so each child brings at least one new commit. Times are from the
driver's submission to the exported workspace, by the machine's one clock. `cold` is the first task of all on a node
with an empty cache: kit, seed and a whole lineage.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cluster.instant import LaterOfTwo, Site
from population.archive import Archive
from population.candidate import Candidate, Operator, Proposal, candidate_id
from population.evaluation import Rejected, Scored
from population.repository import Repository
from vibeserve.chains import Chains
from vibeserve.executor import Delta, MutateTask
from vibeserve.making import Makers
from vibeserve.mutators import Mutation
from vibeserve.workshop import Kit, Workshop

_BATCH = 50
_STAMP = "exported-at"


class Stamp:
    """Mutator: writes down when the workspace was there, as the machine's clock has it."""

    def mutate(self, tree: Path, proposal: Proposal, brief: str) -> Mutation | Rejected:
        """See `vibeserve.mutators.Mutator`."""
        del brief
        now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        (tree / f"stamp{proposal.number}.py").write_text(f"{now_ns}\n", encoding="ascii")
        return Mutation(summary=f"{_STAMP} {now_ns}", changed=(), trace="")


@dataclass(frozen=True, kw_only=True)
class Built:
    """A run's repository and archive."""

    site: Site
    archive: Archive
    seconds: float


def build(folder: Path, count: int) -> Built:
    """A run of `count` candidates, without the machines: each commit by a worker's clone, in the hub by its delta."""
    started = time.perf_counter()
    site = Site.make(folder / "run", cpus=0)
    worker = Repository.cache(folder / "builder.git")
    worker.absorb(site.kit.seed_delta)
    policy, found = LaterOfTwo(), Scored(samples={"output_throughput": (1.0,), "median_ttft_ms": (1.0,)})
    with site.records() as records:
        archive = records.state.archive
        archive.add(
            _candidate(site, Proposal(number=0, operator=Operator.SEED), site.root.commit, site.root.tree, found)
        )
        for start in range(1, count, _BATCH):
            with site.repository.batch():
                for number in range(start, min(start + _BATCH, count)):
                    proposal = policy.propose(archive, (), number, np.random.default_rng(number))
                    assert proposal is not None
                    parent = archive.candidates[proposal.parents[0]].commit
                    made = _edited(worker, parent, proposal)
                    site.repository.absorb(worker.delta(made.sha))
                    site.repository.set_ref(proposal.id, made.sha)
                    archive.add(_candidate(site, proposal, made.sha, made.tree, found))
    return Built(site=site, archive=archive, seconds=time.perf_counter() - started)


def _candidate(site: Site, proposal: Proposal, commit: str, tree: str, found: Scored) -> Candidate:
    return Candidate(proposal=proposal, commit=commit, tree=tree, genome=site.root.genome, evaluation=found, cost_s=1.0)


def _edited(worker: Repository, parent: str, proposal: Proposal) -> Any:
    """The parent's files with 3 to 8 of them changed, committed."""
    rng = np.random.default_rng(proposal.number)
    files = {path: text.encode() for path, text in worker.read_files(parent).items()}
    chosen = rng.choice(sorted(path for path in files if path.endswith(".py")), int(rng.integers(3, 9)), replace=False)
    for path in chosen:
        lines = files[str(path)].splitlines(keepends=True)
        for place in rng.choice(len(lines), len(lines) // 10, replace=False):
            lines[int(place)] = b"value = compute(%.6f)  # child %d\n" % (float(rng.random()), proposal.number)
        files[str(path)] = b"".join(lines)
    return worker.commit_tree(files, parents=(parent,), message=f"child {proposal.number}", number=proposal.number)


@dataclass(frozen=True, kw_only=True)
class Start:
    """One child's start, ms."""

    driver: float
    """CPU of the driver for the task."""
    total: float
    """From the submission to the exported workspace."""
    chain: int
    """Commits in the task's chain."""


def starts(built: Built, numbers: Sequence[int], kit: Kit) -> list[Start]:
    """Children of these candidates, one after the other, on one Ray worker."""
    from vibeserve.cluster.placement import Placement
    from vibeserve.cluster.ray_executor import RayExecutor
    from vibeserve.cluster.selectors import Demand

    executor = RayExecutor(kit, Placement(Demand(cpus=1)))
    chains = Chains(built.site.repository, built.site.root.commit)
    found = []
    for number in numbers:
        child = 100_000 + number
        parent = built.archive.candidates[candidate_id(number)]
        proposal = Proposal(number=child, operator=Operator.TUNE, parents=(parent.id,))
        cpu, sent_ns = time.process_time(), time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        chain = chains.to(built.archive, (parent.id,))
        executor.submit(MutateTask(proposal=proposal, parents=(parent.commit,), chain=chain))
        spent_s = time.process_time() - cpu
        done = list(executor.wait(120.0))
        while not done:
            done = list(executor.wait(120.0))
        summary = getattr(done[0].outcome, "summary", None)
        if summary is None:
            raise SystemExit(f"child {child} did not start: {done[0].outcome}")
        total_ns = int(summary.split()[1]) - sent_ns
        found.append(Start(driver=1000 * spent_s, total=total_ns / 1e6, chain=len(chain)))
    return found


def recovered_s(site: Site, archive: Archive) -> float:
    """How long a resume takes to check the repository against its ledger."""
    commits = {name: candidate.commit for name, candidate in archive.candidates.items()}
    started = time.perf_counter()
    Repository.open(site.folder / "population.git").recover(commits)
    return time.perf_counter() - started


def warm(built: Built, kit: Kit, count: int) -> None:
    """What a node has after the first `count` candidates."""
    shop = Workshop(kit)
    chains = Chains(built.site.repository, built.site.root.commit)
    for number in range(1, count):
        commit = built.archive.candidates[candidate_id(number)].commit
        if shop.lacks([commit]):
            shop.receive([Delta(commit=commit, data=chains.delta(commit).data)])


_HEAD = "| | children | ms to the workspace: median | p99 | most | driver CPU ms: median | p99 | commits in the chain |"


def _row(name: str, found: Sequence[Start]) -> str:
    total, driver = np.array([s.total for s in found]), np.array([s.driver for s in found])
    chain = [s.chain for s in found]
    cells = [name, str(len(found)), f"{np.median(total):.1f}", f"{np.percentile(total, 99):.1f}", f"{total.max():.1f}"]
    cells += [f"{np.median(driver):.2f}", f"{np.percentile(driver, 99):.2f}", f"{min(chain)} to {max(chain)}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--children", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/cluster/child_start.md"))
    options = parser.parse_args()
    from vibeserve.cluster.connection import connect, disconnect

    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="vibeserve-start-") as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        built = build(folder, options.candidates)
        print(f"{options.candidates} candidates made in {built.seconds:.0f} s", flush=True)
        kit = replace(built.site.kit, makers=Makers(mutators={Operator.TUNE: Stamp()}))
        recover_s = recovered_s(built.site, built.archive)
        fresh = range(options.candidates - options.children, options.candidates)
        connect(None)
        try:
            cold = starts(built, [fresh[0] - 1], replace(kit, run=f"{kit.run}-cold"))
            warm(built, kit, fresh[0])
            starts(built, range(1, 6), kit)  # the worker process exists
            found = starts(built, fresh, kit)
        finally:
            disconnect()
        home = folder / "run" / "population.git"
        packs = len(list((home / "objects" / "pack").glob("*.pack")))
        size = subprocess.run(["du", "-sm", str(home)], capture_output=True, text=True, check=True).stdout.split()[0]
    lines = [_HEAD, "|---" * (_HEAD.count("|") - 1) + "|", _row("warm node", found), _row("cold node", cold)]
    print("\n".join(lines), flush=True)
    facts = (
        f"{options.candidates:,} candidates: {packs} packs, {size} MB with refs; a resume checks all of them in "
        f"{recover_s:.2f} s; made in {built.seconds:.0f} s."
    )
    print(facts)
    command = " ".join(["python -m benchmarks.cluster.child_start", *sys.argv[1:]])
    method = (__doc__ or "").split("\n\n", 2)[2].strip()
    text = "\n\n".join(["# Time to start a child", method, f"`{command}`", "\n".join(lines), facts])
    options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
