"""Decides what a watcher knows of a run that may grow: its ledger, read on from where it was read to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, cast

from population.disk import Disk
from population.errors import VibeServeError
from population.events import EpochStarted, Event, Stopped
from population.replay import State
from population.segments import Reading, read_ledger, read_more
from vibeserve.lifecycle import RunState, run_state

T = TypeVar("T")
_MOST_KEPT = 200
"""Answers that are kept per run: what is looked for by text has no end."""


class Followed:
    """One run. Reading and computing hold `lock`, because the state grows in place.

    `revision` grows whenever something could look different; what was computed is kept until then.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.name = run_dir.name
        self.lock = threading.RLock()
        self.state = State()
        self.life = RunState.KILLED
        self.revision = 0
        self.problem: str | None = None
        """Why the ledger could not be read further."""
        self._reading = Reading()
        self._applied = 0
        self._signature: tuple[tuple[str, int, int], ...] | None = None
        self._epochs: list[Event] = []
        self._kept: dict[object, tuple[int, object]] = {}
        self._facts: dict[object, object] = {}

    @property
    def events(self) -> Sequence[Event]:
        """All that was read; do not change it."""
        return self._reading.events

    def refresh(self) -> int:
        """Take in what was appended since the last time; the revision after that."""
        with self.lock:
            signature = _signature(self.run_dir / "ledger")
            if signature != self._signature:
                self._read(signature)
                self._signature = signature
                self.revision += 1
            life = run_state(self._epochs)
            if life is not self.life:
                self.life = life
                self.revision += 1
            return self.revision

    def kept(self, key: object, compute: Callable[[], T]) -> T:
        """What `compute` gives for the present revision, computed once."""
        with self.lock:
            found = self._kept.get(key)
            if found is None or found[0] != self.revision:
                if len(self._kept) >= _MOST_KEPT:
                    self._kept.clear()
                found = (self.revision, compute())
                self._kept[key] = found
            return cast(T, found[1])  # by key, each of one type

    def facts(self, key: object, compute: Callable[[], T]) -> T:
        """What `compute` gives for this run whatever its ledger says (its target and config never change)."""
        with self.lock:
            if key not in self._facts:
                self._facts[key] = compute()
            return cast(T, self._facts[key])

    def _read(self, signature: Sequence[tuple[str, int, int]]) -> None:
        try:
            if self._signature is None or signature[-1:] == () or self._signature[-1:] == ():
                self._restart()
            elif signature[-1][0] != self._signature[-1][0]:
                self._restart()  # a new driver: what an old one wrote last may have become void
            else:
                read_more(self._reading, Disk())
            here = (self.run_dir / "ledger").is_dir()
            self.problem = None if here else f"{self.run_dir} has no ledger any more; was the run deleted or moved?"
        except VibeServeError as error:
            self.problem = str(error)
        self._apply()

    def _restart(self) -> None:
        reading = read_ledger(self.run_dir / "ledger", Disk())
        self._reading, self._applied, self._epochs, self.state = reading, 0, [], State()

    def _apply(self) -> None:
        try:
            for event in self._reading.events[self._applied :]:
                self.state.apply(event)
                self._applied += 1
                if isinstance(event, EpochStarted | Stopped):
                    self._epochs.append(event)
        except VibeServeError as error:
            self.problem = str(error)


def _signature(ledger: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of every segment: changes whenever the ledger does."""
    found = []
    for path in sorted(ledger.glob("*.jsonl")):
        with suppress(FileNotFoundError):
            stat = path.stat()
            found.append((path.name, stat.st_size, stat.st_mtime_ns))
    return tuple(found)
