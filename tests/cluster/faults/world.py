"""Runs of the toy target on a cluster that is being broken, and what must hold of them whatever was broken."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from population.evaluation import Rejected
from population.events import Faulted, Proposed
from population.ledger import read_events
from population.replay import State
from tests.chaos.world import population
from tests.cluster.faults.ground import Ground, Note
from tests.cluster.faults.reference import Reference
from tests.vibeserve.recorded import TOY

DEADLINE_S = 150.0
"""For anything that a test waits for: far beyond what it takes, because machines are slow and busy."""
_POLL_S = 0.05


def until(condition: Callable[[], object], what: str, driver: subprocess.Popen[str] | None = None) -> None:
    """Wait until it holds.

    Raises:
        AssertionError: it did not within `DEADLINE_S`, or the driver that should bring it about has ended.
    """
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S:g} s in vain until {what}"
        assert driver is None or driver.poll() is None, f"the driver ended with code {driver.returncode} before {what}"
        time.sleep(_POLL_S)


@dataclass(frozen=True, kw_only=True)
class World:
    """One run in a folder of its own, on a ground that all processes of the cluster share."""

    folder: Path
    ground: Ground
    children: int = 8
    options: tuple[str, ...] = ("cluster.mutations=2",)
    """Further options of the config, as after `-s`. Every mutation at once is a process that Ray has to start."""
    delay_s: float = 0.1
    target: Path = TOY
    lossy: bool = False
    """Whether `lose-objects` on the ground makes the driver lose what it has put into the object store."""

    @property
    def run_dir(self) -> Path:
        """The one whose ledger has begun: a driver that was killed before leaves a folder that is no run."""
        (run,) = (r for r in (self.folder / "runs").glob("*") if any((r / "ledger").glob("*.jsonl")))
        return run

    def state(self) -> State:
        return State.replay(read_events(self.run_dir / "ledger"))

    @contextmanager
    def driver(self, address: str) -> Iterator[subprocess.Popen[str]]:
        """A driver that begins the run or goes on with it; killed if the test leaves it running."""
        self.folder.mkdir(exist_ok=True)
        words = [sys.executable, "-m", "tests.cluster.faults.driver", str(self.folder), address, str(self.delay_s)]
        words += [str(self.target), "lossy" if self.lossy else "safe"]
        words += [f"budget.children={self.children}", *self.options]
        # Nodes on one machine would unpack a shipped checkout over each other's; they have this one on their path.
        environment = {**os.environ, "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "GROUND": str(self.ground.folder)}
        environment["XDG_CACHE_HOME"] = str(self.folder / "cache")
        with (self.folder / "driver.log").open("a") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def finish(self, process: subprocess.Popen[str]) -> None:
        """The driver comes to its end by itself.

        Raises:
            AssertionError: with its last words, if it failed.
        """
        code = process.wait(timeout=DEADLINE_S)
        assert code == 0, f"the driver ended with code {code}:\n{self.said()[-3000:]}"

    def said(self) -> str:
        """What the drivers have printed so far."""
        return (self.folder / "driver.log").read_text()

    def faulted(self) -> list[str]:
        """The keys of the tasks under which a machine failed, as often as it did."""
        ledgers = (self.folder / "runs").glob("*/ledger")
        return [e.key for ledger in ledgers for e in read_events(ledger) if isinstance(e, Faulted)]

    def unrecorded(self) -> tuple[str, ...]:
        """The keys of the evaluations whose result is not on record: they died with the driver that waited for it."""
        notes = self.ground.notes()
        recorded = {note.key for note in notes if note.what == "record"}
        return tuple(note.key for note in notes if note.what == "end" and note.key not in recorded)

    def require_intact(self, lost: tuple[str, ...] = ()) -> None:
        """What holds after every fault; `lost` are the keys of evaluations whose result was lost with its machine.

        Nothing that was recorded is gone or was begun again; nothing was measured twice; no child was charged with the
        machine's failure or left out; nothing of any evaluation lives; and the population is that of a fault-free run.
        """
        state, notes = self.state(), self.ground.notes()
        recorded = [note.key for note in notes if note.what == "record"]
        assert len(recorded) == len(set(recorded)), "a result was recorded twice"
        results, wanted = Counter(note.key for note in notes if note.what == "end"), Counter([*recorded, *lost])
        assert not wanted - results, "what was recorded was not measured"
        twice = [key for key in results - wanted if not key.startswith("r")]  # a re-measurement may have given way
        assert not twice, f"measured and not recorded: {twice}"
        again = [n.key for place, n in enumerate(notes) if n.what == "begin" and _before(notes[:place], n.key)]
        assert not again, f"measured although their result was on record: {again}"
        assert set(recorded) >= {c.id for c in state.archive.candidates.values() if not _duplicate(c.evaluation)}
        proposed = [e.proposal.number for e in read_events(self.run_dir / "ledger") if isinstance(e, Proposed)]
        assert proposed == list(range(self.children + 1)), "a child was left out"
        assert sorted(state.archive.children) == proposed, "a child has not ended"
        assert not state.pending
        for child in state.archive.children.values():
            assert "given up" not in getattr(child.evaluation, "reason", ""), f"{child.id} was charged with a fault"
        assert population(state) == Reference(self.run_dir, self.folder / "again").population()
        until(lambda: not self.ground.survivors(), f"nothing of any evaluation lives: {self.ground.survivors()}")


def _before(notes: Sequence[Note], key: str) -> bool:
    return any(note.what == "record" and note.key == key for note in notes)


def _duplicate(evaluation: object) -> bool:
    return isinstance(evaluation, Rejected) and evaluation.stage == "dedupe"
