"""What happens to evaluations and mutations, and what is written down of it, independently of any ledger.

A ground is a folder that all processes of a test share. Files in it say what goes wrong on which node (`hold-b`,
`broken-b`, `full-b`, `outage`), and what is said of its GPU there (`nvidia-smi-b`, a program); its log, to which
everybody appends whole lines, says what was begun, ended, recorded.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from evaluators import gpu_health
from evaluators.evaluator import EvaluationTask, Lease
from evaluators.process import Launch, RunningProcess
from population.candidate import Proposal
from population.disk import Disk
from population.errors import InfrastructureError
from population.evaluation import Evaluation, Rejected, Stage
from tests.vibeserve.recorded import RecordedEvaluator
from vibeserve.mutators import Mutation, RecipeMutator, TuneMutator

NODE_VARIABLE, GROUND_VARIABLE = "GROUND_NODE", "GROUND"
_POLL_S = 0.01


@dataclass(frozen=True, kw_only=True)
class Note:
    """One line of the log."""

    what: Literal["mutate", "refuse", "begin", "hold", "end", "record", "fault"]
    """A mutation or an evaluation begins; a mutation is refused by the provider; an evaluation is held, has
    its result; the driver's ledger has made the result (`record`) or the machine's failure (`fault`) durable."""
    key: str
    node: str = ""
    processes: tuple[tuple[int, int], ...] = ()
    """Process ids and when each was born: the worker, the server, the server's supervisor."""


@dataclass(frozen=True)
class Ground:
    """The shared folder."""

    folder: Path

    def note(self, note: Note) -> None:
        log = os.open(self.folder / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC)
        os.write(log, json.dumps(asdict(note)).encode("ascii") + b"\n")
        os.close(log)

    def notes(self) -> list[Note]:
        """Everything so far, in order."""
        log = self.folder / "log"
        lines = [json.loads(line) for line in log.read_text().split("\n")[:-1]] if log.exists() else []
        return [Note(**line | {"processes": tuple(map(tuple, line["processes"]))}) for line in lines]

    def now(self, what: str) -> bool:
        """Whether that is going wrong."""
        return (self.folder / what).exists()

    def set(self, what: str) -> None:
        (self.folder / what).touch()

    def program(self, what: str, script: str) -> None:
        """A program of this name that does what the lines of a shell say, with the ground as `$ground`."""
        path = self.folder / what
        path.write_text(f"#!/bin/sh\nground={self.folder}\n{script}")
        path.chmod(0o755)

    def clear(self, what: str) -> None:
        (self.folder / what).unlink()

    def held(self, node: str) -> list[Note]:
        """The evaluations that are held on this node: as `begin` says it."""
        notes = [note for note in self.notes() if note.node == node]
        begun = {note.key: note for note in notes if note.what == "begin"}
        waiting = [note.key for place, note in enumerate(notes) if note.what == "hold" and not _over(notes[place:])]
        return [begun[key] for key in waiting]

    def survivors(self) -> list[tuple[int, int]]:
        """Of the processes that evaluations consisted of, those that still live."""
        return [p for note in self.notes() for p in note.processes if born(p[0]) == p[1]]


def _over(notes: list[Note]) -> bool:
    """Whether the evaluation that the first of these is about has its result."""
    return any(note.what == "end" and note.key == notes[0].key for note in notes)


def here() -> Ground:
    """The ground of the process, as its environment says."""
    return Ground(Path(os.environ[GROUND_VARIABLE]))


def born(pid: int) -> int | None:
    """When a process was born, in ticks since the boot; None: it is gone, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if stat[0] in "ZX" else int(stat[19])


def _identity(pid: int) -> tuple[int, int]:
    return pid, born(pid) or 0


@dataclass(frozen=True)
class GroundEvaluator:
    """A recorded evaluation beside a real server process; obeys the ground."""

    delay_s: float = 0.1

    def evaluate(self, task: EvaluationTask, lease: Lease, progress: Callable[[Stage], None]) -> Evaluation:
        ground, node, key = here(), os.environ.get(NODE_VARIABLE, "driver"), task.candidate
        smi = str(ground.folder / f"nvidia-smi-{node}")
        before = gpu_health.look(("0",), smi)
        with _server(task) as server:
            processes = tuple(map(_identity, (os.getpid(), server.pid, server.supervisor_pid)))
            ground.note(Note(what="begin", key=key, node=node, processes=processes))
            if ground.now(f"hold-{node}"):
                ground.note(Note(what="hold", key=key, node=node))
            while ground.now(f"hold-{node}"):
                time.sleep(_POLL_S)
            if ground.now(f"full-{node}"):
                Path("/dev/full").write_text("a server's log")
            if ground.now(f"broken-{node}"):
                evaluation: Evaluation = Rejected(stage=Stage.BOOT, reason="CUDA error: unspecified launch failure")
            else:
                evaluation = RecordedEvaluator(delay_s=self.delay_s).evaluate(task, lease, progress)
        if isinstance(evaluation, Rejected):
            wrong = gpu_health.fault(before, gpu_health.look(("0",), smi))
            if wrong is not None:
                raise InfrastructureError(wrong)
        ground.note(Note(what="end", key=key, node=node))
        return evaluation


@contextmanager
def _server(task: EvaluationTask) -> Iterator[RunningProcess]:
    """Two processes that would live for ever, started as every candidate's server is."""
    words = ("/bin/sh", "-c", "sleep 86400 & wait")
    with RunningProcess(
        Launch(command=words, workspace=task.workspace, env={}, log=task.workspace.parent / "sleep.log")
    ) as process:
        yield process


class _Provider:
    """Stands for what a mutation by an LLM needs: a service that may be out."""

    def mutate(self, tree: Path, proposal: Proposal, brief: str) -> Mutation | Rejected:
        ground = here()
        if proposal.number and ground.now("outage"):  # 0: a baseline, made before the run
            ground.note(Note(what="refuse", key=proposal.id))
            raise InfrastructureError("the provider does not answer: 503")
        ground.note(Note(what="mutate", key=proposal.id, node=os.environ.get(NODE_VARIABLE, "driver")))
        return super().mutate(tree, proposal, brief)  # type: ignore[misc,no-any-return]


class ProvidedRecipes(_Provider, RecipeMutator):
    """Recipes while the provider answers."""


class ProvidedTuning(_Provider, TuneMutator):
    """Knobs while the provider answers."""


@dataclass
class NotingDisk(Disk):
    """Writes down the results and faults that a ledger has on stable storage, at the moment they are."""

    written: list[Note] = field(default_factory=list)

    def write(self, fd: int, data: bytes) -> int:
        if here().now("full-driver"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        size = super().write(fd, data)
        if data.startswith(b"{"):
            self.written += [note for line in data.splitlines() if (note := _recorded(line)) is not None]
        return size

    def sync(self, fd: int) -> None:
        super().sync(fd)
        ground, notes, self.written = here(), self.written, []
        for note in notes:
            ground.note(note)


def _recorded(line: bytes) -> Note | None:
    event = json.loads(line)["event"]
    match event["kind"]:
        case "ended" if event["evaluation"]["kind"] == "scored" or event["place"] is not None:
            return Note(what="record", key=f"c{event['number']:06d}")
        case "remeasured":
            return Note(what="record", key=f"r{event['index']:06d}")
        case "final_measured":
            return Note(what="record", key=f"f-{event['subject']}-{event['round']}")
        case "faulted":
            return Note(what="fault", key=event["key"])
    return None


assert sys.platform == "linux"
