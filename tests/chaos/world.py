"""Drivers of the toy target with recorded measurements, as processes that can be killed, stopped and replaced.

One slot, one secret: every run of a world must end with the same population, whatever happened on its way.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from population.candidate import Candidate
from population.disk import Disk
from population.errors import VibeServeError
from population.evaluation import Evaluation, Rejected, Scored, Stage
from population.ledger import read_events
from population.replay import State
from tests.vibeserve.recorded import RecordedEvaluator, toy_config
from vibeserve import wiring
from vibeserve.display import SilentDisplay
from vibeserve.executor import Evaluated, Fault, MeasureTask, Mutated, MutateTask
from vibeserve.wiring import Parts
from vibeserve.workshop import Workshop

CHILDREN = 10
_STAGES = "stages.log"
Hook = Callable[[str, Path | int | bytes], None]
_RECORD = b'{"hash":"'


def are_records(subject: Path | int | bytes) -> bool:
    """Whether what is written are records of the ledger; other bytes belong to the repository."""
    return isinstance(subject, bytes) and subject.startswith(_RECORD)


@dataclass
class HookedDisk(Disk):
    """Calls `before` and `after` everything that changes the disk: the operation, and its path, descriptor or bytes."""

    before: Hook = field(default=lambda operation, subject: None)
    after: Hook = field(default=lambda operation, subject: None)

    def create(self, path: Path) -> int:
        self.before("create", path)
        fd = super().create(path)
        self.after("create", path)
        return fd

    def write(self, fd: int, data: bytes) -> int:
        self.before("write", data)
        size = super().write(fd, data)
        self.after("write", data)
        return size

    def sync(self, fd: int) -> None:
        self.before("sync", fd)
        super().sync(fd)
        self.after("sync", fd)

    def sync_all(self, fds: Sequence[int]) -> None:
        """In one order, so that runs are alike."""
        for fd in fds:
            self.sync(fd)

    def rename(self, source: Path, target: Path) -> None:
        self.before("rename", source)
        super().rename(source, target)
        self.after("rename", target)

    def sync_folder(self, path: Path) -> None:
        self.before("sync_folder", path)
        super().sync_folder(path)
        self.after("sync_folder", path)

    def rewrite(self, path: Path, offset: int, data: bytes) -> None:
        self.before("rewrite", path)
        super().rewrite(path, offset, data)
        self.after("rewrite", path)

    def touch(self, path: Path) -> None:
        self.before("touch", path)
        super().touch(path)
        self.after("touch", path)


class NotingWorkshop(Workshop):
    """Writes down which stage of which task it begins."""

    def mutate(self, task: MutateTask) -> Mutated | Rejected | Fault:
        _note(f"mutate {task.key}")
        return super().mutate(task)

    def measure(self, task: MeasureTask, progress: Callable[[Stage], None]) -> Evaluated | Fault:
        _note(f"measure {task.key}")
        return super().measure(task, progress)


def _note(stage: str) -> None:
    log = os.open(Path(os.environ["XDG_CACHE_HOME"]) / _STAGES, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC)
    os.write(log, f"{os.getpid()} {stage}\n".encode("ascii"))
    os.close(log)


@dataclass(frozen=True, kw_only=True)
class World:
    """A folder for one run, its caches and scratch files, and the seed of its search."""

    folder: Path
    seed: int
    children: int = CHILDREN
    finals: int = 1

    @property
    def run_dir(self) -> Path | None:
        """The run, once its ledger has an event."""
        runs = self.folder / "runs"
        begun = [r for r in runs.glob("*") if any((r / "ledger").glob("*.jsonl"))] if runs.is_dir() else []
        assert len(begun) <= 1
        return begun[0] if begun else None

    def drive(self, disk: Disk | None = None, take_over: bool = False, delay_s: float = 0.0) -> str:
        """Start the run, or go on with it, in this process, whose environment and wiring become this world's."""
        for name in ("cache", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(self.folder / "cache"))
            patch.setenv("TMPDIR", str(self.folder / "tmp"))
            patch.setattr(tempfile, "tempdir", None)
            patch.setattr("vibeserve.hosts.Workshop", NotingWorkshop)
            patch.setattr("vibeserve.wiring.secrets.token_hex", lambda size: "5e" * size)
            return self._drive(disk, take_over, delay_s)

    def _drive(self, disk: Disk | None, take_over: bool, delay_s: float) -> str:
        parts = Parts(evaluator=RecordedEvaluator(delay_s=delay_s), disk=disk or Disk(), take_over=take_over)
        if self.run_dir is not None:
            return wiring.resume(self.run_dir, (), SilentDisplay(), parts).stopped_because
        options = (f"seed={self.seed}", f"budget.children={self.children}", f"evaluation.final_repeats={self.finals}")
        return wiring.run(toy_config(self.folder / "runs", *options), SilentDisplay(), parts).stopped_because

    def stages(self) -> list[tuple[str, ...]]:
        """Process, stage and task of everything that was begun, in order."""
        log = self.folder / "cache" / _STAGES
        return [tuple(line.split()) for line in log.read_text().splitlines()] if log.exists() else []

    def population(self) -> list[str]:
        """Everything that the run has found, without times."""
        assert self.run_dir is not None
        return population(State.replay(read_events(self.run_dir / "ledger")))


def population(state: State) -> list[str]:
    """Everything that a run has found, without times."""
    rows: list[object] = []
    for number, child in sorted(state.archive.children.items()):
        commit = (child.commit, child.tree) if isinstance(child, Candidate) else None
        again = state.archive.evaluations(child.id)[1:] if isinstance(child, Candidate) else ()
        rows.append((number, child.proposal, commit, [_found(e) for e in (child.evaluation, *again)]))
    finals = [(key, _found(final.evaluation)) for key, final in sorted(state.finals.items())]
    return [repr(row) for row in (*rows, state.archive.front, finals, state.pending, state.remeasuring)]


def _found(evaluation: Evaluation) -> object:
    return dict(evaluation.samples) if isinstance(evaluation, Scored) else (evaluation.stage, evaluation.reason)


def main(folder: str, seed: str, *flags: str) -> None:
    """One driver in the foreground; errors look as on the command line."""
    try:
        print(World(folder=Path(folder), seed=int(seed)).drive(take_over="--take-over" in flags, delay_s=0.05))
    except VibeServeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
