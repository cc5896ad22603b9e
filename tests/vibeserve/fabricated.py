"""A run folder made by the real ledger and repository, without a driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from population.candidate import Operator, Proposal
from population.evaluation import Rejected, Scored, Stage
from population.events import (
    Ended,
    Event,
    Faulted,
    FinalMeasured,
    MutationDone,
    Proposed,
    Remeasured,
    RemeasureStarted,
    RunStarted,
    Stopped,
)
from population.genome import parse_genome
from population.ledger import Ledger
from population.objectives import Direction, Objective
from population.repository import Repository

OBJECTIVES = (
    Objective(name="output_throughput", direction=Direction.MAX, unit="tok/s", loads=("high",)),
    Objective(name="median_ttft_ms", direction=Direction.MIN, unit="ms", loads=("low",)),
)
COMPONENT = """[component]
name = "server"
interface = 1
implementation = "toy"
[knob.batch]
value = {batch}
type = "int"
low = 1
high = 64
"""


def scored(throughput: float, ttft_ms: float, **extra: float) -> Scored:
    samples = {"output_throughput@high": (throughput,) * 2, "median_ttft_ms@low": (ttft_ms,) * 2}
    return Scored(
        samples={**samples, **{name: (value,) * 2 for name, value in extra.items()}},
        audit={"max_gap": 0.01},
        hints={"matmul": 0.5},
        stage_s={"boot": 0.5, "benchmark": 2.0},
    )


@dataclass
class FabricatedRun:
    """Writes events one by one; `close` releases the ledger as a killed driver would."""

    folder: Path
    ledger: Ledger
    repository: Repository
    commits: dict[str, str]

    @classmethod
    def create(
        cls,
        runs_dir: Path,
        name: str,
        config: str = "",
        *,
        seed: int = 7,
        fingerprint: Mapping[str, str] | None = None,
        objectives: tuple[Objective, ...] = OBJECTIVES,
    ) -> FabricatedRun:
        folder = runs_dir / name
        folder.mkdir(parents=True)
        (folder / "run.toml").write_text(config or "seed = 7\n[budget]\nchildren = 25\nwall_time_s = 300\n")
        run = cls(
            folder, Ledger.open(folder / "ledger"), Repository.create(folder / "population.git", durable=False), {}
        )
        run.append(RunStarted(run=name, seed=seed, objectives=objectives, fingerprint=fingerprint or {}))
        return run

    def append(self, event: Event) -> None:
        self.ledger.append(event)

    def child(
        self,
        number: int,
        evaluation: Scored | Rejected | None,
        operator: Operator = Operator.RECIPE,
        *,
        parents: tuple[str, ...] = (),
        recipe: str | None = None,
        knobs: Mapping[str, int] | None = None,
        commits: bool = True,
    ) -> None:
        """A child with a commit and, unless None, its evaluation."""
        proposal = Proposal(number=number, operator=operator, parents=parents, recipe=recipe, knobs=knobs or {})
        self.append(Proposed(proposal=proposal))
        if commits:
            files = {
                "server.py": f"# version {number}\nprint('hello')\n".encode(),
                "server.toml": COMPONENT.format(batch=number + 1).encode(),
            }
            above = [self.commits[p] for p in parents]
            commit = self.repository.commit_tree(files, parents=above, message=f"child {number}", number=number)
            self.repository.set_ref(proposal.id, commit.sha)
            self.commits[proposal.id] = commit.sha
            genome = parse_genome({"server.toml": COMPONENT.format(batch=number + 1)})
            self.append(
                MutationDone(
                    number=number, commit=commit.sha, tree=commit.tree, genome=genome, summary=f"child {number}"
                )
            )
        if evaluation is not None:
            self.append(Ended(number=number, evaluation=evaluation, elapsed_s=2.5))

    def close(self) -> None:
        self.ledger.close()


def small_run(runs_dir: Path, name: str = "20260101-000000-small", stopped: str | None = "budget: children") -> Path:
    """A seed, two members of the front, a dominated child, rejections at two stages, a re-measurement, finals."""
    run = FabricatedRun.create(runs_dir, name)
    run.child(0, scored(100, 50), Operator.SEED)
    run.child(1, scored(2310, 40, p99_ttft_ms=90), parents=("c000000",), recipe="kv-cache")
    run.child(
        2,
        Rejected(stage=Stage.AUDIT, reason="max gap 1.2 above 0.5", evidence="token \x1b[31m17"),
        parents=("c000001",),
    )
    run.child(3, scored(1500, 10), Operator.TUNE, parents=("c000001",), knobs={"server.batch": 4})
    run.child(4, scored(90, 60), parents=("c000000",), recipe="slow")
    run.child(5, Rejected(stage=Stage.DEDUPE, reason="the same tree as c000001"), parents=("c000001",), commits=False)
    run.append(RemeasureStarted(index=0, candidate="c000001"))
    run.append(Remeasured(index=0, candidate="c000001", evaluation=scored(2300, 41)))
    run.append(Faulted(key="c000004", reason="node lost", attempt=1))
    for subject, evaluation in (("c000000", scored(98, 51)), ("c000001", scored(2290, 42)), ("kv", scored(600, 45))):
        run.append(FinalMeasured(subject=subject, evaluation=evaluation, round=0))
    if stopped is not None:
        run.append(Stopped(reason=stopped, elapsed_s=12.0))
    files = run.folder / "children" / "c000002"
    files.mkdir(parents=True)
    (files / "server.log").write_text("line 1\nline 2\n\x1b[2Jline 3\n")
    run.close()
    return run.folder
