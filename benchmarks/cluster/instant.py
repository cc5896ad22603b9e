"""What the benchmarks of overhead run: a mutator and an evaluator that take no time, on candidates of realistic size.

Everything else is real: workshop, repository, ledger, archive, driver, Ray. A child rewrites 3 to 8 of its files, about
a tenth of their lines; its parent is the later of two earlier candidates, so that lineages are some twenty commits deep
at 10,000 candidates.
"""

from __future__ import annotations

import secrets
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.evaluator import EvaluationTask, Lease
from evaluators.fingerprint import digest
from population.archive import Archive
from population.candidate import Operator, Proposal, candidate_id
from population.evaluation import Evaluation, Rejected, Scored, Stage
from population.events import RunStarted
from population.genome import parse_genome
from population.ledger import Ledger
from population.objectives import Direction, Objective
from population.replay import State
from population.repository import Repository
from vibeserve.driver import Driver
from vibeserve.executor import Executor
from vibeserve.flow import FlowRules
from vibeserve.making import Makers
from vibeserve.mutators import Mutation
from vibeserve.records import Records
from vibeserve.rules import Root, Rules
from vibeserve.workshop import Kit, pack

FILES = 24
_LINES = 60
_CHANGED = (3, 8)
OBJECTIVES = (
    Objective(name="output_throughput", direction=Direction.MAX),
    Objective(name="median_ttft_ms", direction=Direction.MIN),
)


def seed_files(count: int) -> dict[str, bytes]:
    """Modules of 60 lines in up to four folders, and a component file."""
    rng = np.random.default_rng(0)
    files = {}
    for number in range(count):
        lines = "".join(_line(rng) for _ in range(_LINES))
        files[f"part{number % 4}/module{number}.py"] = lines.encode("ascii")
    return files | {"server.toml": b'[component]\nname = "server"\ninterface = 1\nimplementation = "seed"\n'}


def _line(rng: np.random.Generator) -> str:
    names = rng.integers(0, 200, 3)
    return f"value_{names[0]} = compute(value_{names[1]}, scale={float(rng.random()):.6f})  # of part {names[2]}\n"


class Scribbler:
    """Mutator: other lines in some files, drawn by the child's number; never the same tree twice."""

    def mutate(self, tree: Path, proposal: Proposal, brief: str) -> Mutation | Rejected:
        """See `vibeserve.mutators.Mutator`."""
        del brief
        rng = np.random.default_rng(proposal.number)
        paths = sorted(tree.rglob("*.py"))
        count = min(len(paths), int(rng.integers(_CHANGED[0], _CHANGED[1] + 1)))
        chosen = [paths[int(i)] for i in sorted(rng.choice(len(paths), count, replace=False))]
        for path in chosen:
            lines = path.read_text(encoding="ascii").splitlines(keepends=True)
            for place in rng.choice(len(lines), _LINES // 10, replace=False):
                lines[int(place)] = _line(rng)
            lines[0] = f"# child {proposal.number}\n"
            path.write_text("".join(lines), encoding="ascii")
        changed = tuple(str(path.relative_to(tree)) for path in chosen)
        return Mutation(summary=f"scribble {proposal.number}", changed=changed, trace="scribbled\n")


class Instant:
    """Evaluator: two numbers from the content seed."""

    def evaluate(self, task: EvaluationTask, lease: Lease, progress: Callable[[Stage], None]) -> Evaluation:
        """See `evaluators.evaluator.Evaluator`."""
        del lease
        progress(Stage.BENCHMARK)
        assert task.output is not None
        (task.output / "server.log").write_text("instant\n", encoding="ascii")
        one, two = np.random.default_rng(task.content_seed).random(2)
        return Scored(samples={"output_throughput": (1.0 + float(one),), "median_ttft_ms": (1.0 + float(two),)})


class LaterOfTwo:
    """Policy: of two earlier candidates the later one. No search, whose cost has benchmarks of its own."""

    def propose(
        self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator
    ) -> Proposal | None:
        """See `search.policy.Policy`."""
        del pending
        known = archive.children
        drawn = sorted((int(n) for n in rng.integers(0, len(known), 2)), reverse=True)
        parent = next((candidate_id(n) for n in drawn if candidate_id(n) in archive.candidates), candidate_id(0))
        return Proposal(number=number, operator=Operator.TUNE, parents=(parent,))

    def remeasure(self, archive: Archive, pending: Sequence[str], rng: np.random.Generator) -> str | None:
        """Never."""
        del archive, pending, rng
        return None


@dataclass(frozen=True, kw_only=True)
class Site:
    """A run's folder with its repository and what its workers need."""

    folder: Path
    repository: Repository
    root: Root
    kit: Kit

    @classmethod
    def make(cls, folder: Path, cpus: int, files: int = FILES) -> Site:
        """A new run in an empty folder, of candidates of so many modules."""
        target = folder / "target"
        target.mkdir(parents=True)
        (target / "OBJECTIVE.md").write_text("nothing\n", encoding="ascii")
        repository = Repository.create(folder / "population.git")
        commit = repository.commit_tree(seed_files(files), parents=(), message="seed", number=0)
        repository.set_ref(candidate_id(0), commit.sha)
        kit = Kit(
            run=f"instant-{secrets.token_hex(4)}",
            target_tar=pack(target),
            target_digest=digest(target),
            seed_delta=repository.delta(commit.sha),
            seed_commit=commit.sha,
            makers=Makers(mutators={Operator.TUNE: Scribbler()}),
            evaluator=Instant(),
            cpus=cpus,
        )
        genome = parse_genome(repository.read_files(commit.sha, "*.toml"))
        return cls(
            folder=folder,
            repository=repository,
            root=Root(commit=commit.sha, tree=commit.tree, genome=genome),
            kit=kit,
        )

    def drive(self, executor: Executor, children: int, mutations: int, on_event: Callable[[int], None]) -> None:
        """A whole run; `on_event` is told how many children have ended, at every record."""
        rules = Rules(
            seed=1,
            secret=b"0",
            root=self.root,
            children=children,
            racing=False,
            remeasure=False,
            final_repeats=0,
            flow=FlowRules(mutations=mutations),
        )
        with self.records() as records:
            archive = records.state.archive
            Driver(rules, records, LaterOfTwo(), executor, lambda tick: on_event(len(archive.children))).run()

    @contextmanager
    def records(self) -> Iterator[Records]:
        """Ledger, state and repository, as a driver has them."""
        with Ledger.open(self.folder / "ledger") as ledger:
            state = State.replay(ledger.events())
            if state.started is None:
                state.apply(ledger.append(RunStarted(run=self.kit.run, seed=1, objectives=OBJECTIVES)))
            self.repository.recover(state.commits)
            yield Records(
                ledger=ledger,
                state=state,
                repository=self.repository,
                children=self.folder / "children",
                stop_marker=self.folder / "stop",
            )


def spread(values: Sequence[float], digits: int) -> str:
    """Median (least to most)."""
    low, middle, high = (f"{v:,.{digits}f}" for v in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle
