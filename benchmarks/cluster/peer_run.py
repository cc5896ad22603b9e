"""VibeServe on the peers' workload: one search whose LLM is the stub and whose evaluations sleep.

`python -m benchmarks.cluster.peer_run OUT PORT SLOTS CALLS CHILDREN`, started by the peers' `harness.py`, whose
`workload.py` must be importable. Everything else is real: ledger with its syncs, git repository, Ray, driver, flow. The
parent of a child is drawn from the front (0.7) or from all that is scored.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.evaluator import EvaluationTask, Lease
from population.archive import Archive
from population.candidate import Operator, Proposal
from population.evaluation import Evaluation, Rejected, Scored, Stage
from population.events import RunStarted
from population.genome import parse_genome
from population.ledger import Ledger
from population.objectives import Direction, Objective
from population.replay import State
from population.repository import Repository
from vibeserve.driver import Driver
from vibeserve.flow import FlowRules
from vibeserve.making import Makers
from vibeserve.mutators import Mutation
from vibeserve.records import Records
from vibeserve.rules import Root, Rules
from vibeserve.workshop import Kit, pack

OBJECTIVES = (
    Objective(name="throughput", direction=Direction.MAX),
    Objective(name="ttft", direction=Direction.MIN),
    Objective(name="tpot", direction=Direction.MIN),
)
_EDIT = re.compile(r"<<<<<<< SEARCH\n(.*?)\n=======\n(.*?)\n>>>>>>> REPLACE", re.S)
_PROGRAM = "program.py"
_LLM_TIMEOUT_S = 120.0
_EXPECTED_LLM_S = 1.4
"""What a user knows of his LLM before the first answer: the mean of the workload's."""


@dataclass(frozen=True)
class LlmMutator:
    """Asks the stub for an edit of the parent's program, and applies it."""

    port: int

    def mutate(self, tree: Path, proposal: Proposal, brief: str) -> Mutation | Rejected:
        program = (tree / _PROGRAM).read_text()
        answer = self._ask(f"# Current Program\n```python\n{program}```\n")
        edits = _EDIT.findall(answer)
        if not edits:
            return Rejected(stage=Stage.MUTATE, reason="the answer has no edit", evidence=answer[:1000])
        for search, replacement in edits:
            if program.count(search) != 1:
                return Rejected(stage=Stage.MUTATE, reason="the edit does not fit the program", evidence=search[:1000])
            program = program.replace(search, replacement)
        (tree / _PROGRAM).write_text(program)
        return Mutation(summary=f"edit of {proposal.parents[0]}", changed=(_PROGRAM,), trace=answer)

    def _ask(self, prompt: str) -> str:
        messages = [
            {"role": "system", "content": "You improve a serving system."},
            {"role": "user", "content": prompt},
        ]
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            data=json.dumps({"model": "stub", "messages": messages}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_LLM_TIMEOUT_S) as response:
            answer: str = json.load(response)["choices"][0]["message"]["content"]
        return answer


@dataclass(frozen=True)
class SleepingEvaluator:
    """The workload's evaluation: it sleeps as long as the program says."""

    def evaluate(self, task: EvaluationTask, lease: Lease, progress: Callable[[Stage], None]) -> Evaluation:
        import workload

        found = workload.evaluate_text((task.workspace / _PROGRAM).read_text())
        return Scored(samples={o.name: (float(found[o.name]),) for o in OBJECTIVES})


class FrontPolicy:
    """A parent from the front, or any."""

    def propose(self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator) -> Proposal:
        pool = archive.front if rng.random() < 0.7 else archive.scored
        return Proposal(number=number, operator=Operator.AGENT, parents=(pool[int(rng.integers(len(pool)))],))

    def remeasure(self, archive: Archive, pending: Sequence[str], rng: np.random.Generator) -> None:
        return None


def prepared(folder: Path) -> tuple[Repository, Root]:
    """A run folder with the seed program."""
    import workload

    repository = Repository.create(folder / "population.git")
    commit = repository.commit_tree({_PROGRAM: workload.program().encode()}, parents=(), message="seed", number=0)
    repository.set_ref("c000000", commit.sha)
    return repository, Root(commit=commit.sha, tree=commit.tree, genome=parse_genome({}))


def kit_of(folder: Path, repository: Repository, root: Root, port: int) -> Kit:
    (folder / "target").mkdir()
    return Kit(
        run=f"peer-{secrets.token_hex(4)}",
        target_tar=pack(folder / "target"),
        target_digest="none",
        seed_delta=repository.delta(root.commit),
        seed_commit=root.commit,
        makers=Makers(mutators={Operator.AGENT: LlmMutator(port)}),
        evaluator=SleepingEvaluator(),
        cpus=0,
    )


def search(folder: Path, rules: Rules, repository: Repository, kit: Kit) -> None:
    """One search on a Ray of its own with as many CPUs as there are slots, each an evaluation's."""
    from vibeserve.cluster.placement import Placement
    from vibeserve.cluster.ray_executor import RayExecutor
    from vibeserve.cluster.selectors import Demand

    executor = RayExecutor(kit, Placement(Demand(cpus=1)))
    executor.warm(executor.evaluate_slots + (rules.flow.mutations or 0))
    with Ledger.open(folder / "ledger") as ledger:
        state = State()
        for event in ledger.events():
            state.apply(event)
        state.apply(ledger.append(RunStarted(run=kit.run, seed=rules.seed, objectives=OBJECTIVES)))
        records = Records(
            ledger=ledger,
            state=state,
            repository=repository,
            children=folder / "children",
            stop_marker=folder / "stop",
        )
        began_s, cpu_s = time.monotonic(), time.process_time()
        reason = Driver(rules, records, FrontPolicy(), executor, lambda tick: None).run()
        wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    scored = len(state.archive.scored)
    print(f"{reason}: {scored} scored in {wall_s:.1f} s, driver {1000 * cpu_s / max(1, scored):.2f} ms CPU per child")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for name in ("port", "slots", "calls", "children"):
        parser.add_argument(name, type=int)
    options = parser.parse_args()
    folder = options.out.resolve() / "run"
    folder.mkdir(parents=True)
    os.environ["XDG_CACHE_HOME"] = str(options.out.resolve() / "cache")
    # A worker that is idle for a second would be ended, and be missed a second later.
    os.environ.update({"RAY_idle_worker_killing_time_threshold_ms": "600000"})
    os.environ["RAY_AUTH_MODE"] = "disabled"  # loopback only
    from vibeserve.cluster import connection

    connection.ray.init(
        address="local", num_cpus=options.slots, include_dashboard=False, log_to_driver=False, configure_logging=False
    )
    repository, root = prepared(folder)
    rules = Rules(
        seed=1,
        secret=b"0",
        root=root,
        children=options.children,
        remeasure=False,
        racing=False,
        final_repeats=0,
        flow=FlowRules(mutations=options.calls, expected_mutation_s=_EXPECTED_LLM_S),
    )
    search(folder, rules, repository, kit_of(folder, repository, root, options.port))


if __name__ == "__main__":
    from benchmarks.cluster import peer_run  # so that workers find the classes under this name, not `__main__`

    peer_run.main()
