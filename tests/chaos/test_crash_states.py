"""Every state that a power cut can leave of a ledger: what was acknowledged is there, once, and nothing by halves.

Three drivers write one ledger, one after the other. Wherever one of them is, the power may fail (what was not synced is
there in any subset, cut anywhere), or the process may be killed (what was written is there, synced or not) and the
power fail while the next driver opens the ledger. From each such state a driver must be able to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from population.errors import LedgerError
from population.events import EpochStarted, Event, Faulted
from population.ledger import Ledger
from population.segments import read_ledger
from tests.chaos.memory_disk import Image, MemoryDisk

FOLDER = Path("/run/ledger")
FEWEST_STATES = 50_000
SIZES = ((30, (600, 10, 300)), ((500, 200), 40), (80,))
"""Letters in the events of each driver, shorter and longer than a sector; several in brackets are appended at once."""


@dataclass
class History:
    """What was acknowledged, and what was being written, whenever something on the disk changed."""

    disk: MemoryDisk
    acknowledged: list[str] = field(default_factory=list)
    writing: list[str] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.disk.after = self.note

    def note(self) -> None:
        self.moments.append(Moment(self.disk.kill(), tuple(self.acknowledged), tuple(self.writing)))

    def drive(self, appends: Sequence[int | tuple[int, ...]], take_over: bool = False) -> None:
        with Ledger.open(FOLDER, take_over, self.disk) as ledger:
            self.acknowledged[:] = keys(ledger.events())
            self.writing.clear()
            for sizes in appends:
                group = sizes if isinstance(sizes, tuple) else (sizes,)
                count = len(self.acknowledged)
                events = [Faulted(key=f"e{n}-{x}", reason="x" * x, attempt=1) for n, x in enumerate(group, count)]
                self.writing[:] = keys(events)
                ledger.append_all(events)
                self.writing.clear()
                self.acknowledged += keys(events)
                self.note()


@dataclass(frozen=True)
class Moment:
    disk: MemoryDisk
    acknowledged: tuple[str, ...]
    writing: tuple[str, ...]

    @property
    def allowed(self) -> tuple[tuple[str, ...], ...]:
        """What may be found: all that was acknowledged, and perhaps the first events of what was being written."""
        return tuple(self.acknowledged + self.writing[:count] for count in range(len(self.writing) + 1))


def keys(events: Sequence[Event] | Iterator[Event]) -> list[str]:
    return [event.key for event in events if isinstance(event, Faulted)]


def three_drivers(disk: MemoryDisk) -> list[Moment]:
    history = History(disk)
    for sizes in SIZES:
        history.drive(sizes)
    return history.moments


def recoveries(disk: MemoryDisk, before: Moment) -> list[Moment]:
    """What happens on the disk while a driver goes on from a crash or a kill at some moment."""
    history = History(disk, list(before.acknowledged), list(before.writing))
    history.drive((60,))
    return history.moments


def goes_on(image: Image, moment: Moment, make: Callable[[Image], MemoryDisk] = MemoryDisk.of) -> None:
    """A driver opens what is left, sees what it must, appends, and after one more power cut all of that is there."""
    disk = make(image)
    with Ledger.open(FOLDER, disk=disk) as ledger:
        found = keys(ledger.events())
        epochs = [event.epoch for event in ledger.events() if isinstance(event, EpochStarted)]
        assert tuple(found) in moment.allowed
        assert epochs == sorted(set(epochs))
        ledger.append(Faulted(key="next", reason="", attempt=1))
    kept = MemoryDisk.of({path: inode.durable for path, inode in disk.durable.items()})
    assert keys(read_ledger(FOLDER, kept).events) == [*found, "next"]


def states(make: Callable[[Image], MemoryDisk], stride: int) -> Iterator[tuple[Image, Moment]]:
    """Every state after one power cut, then those after another one in the driver that goes on (from it, or a kill)."""
    seen = set()

    def fresh(moment: Moment, stride: int) -> Iterator[tuple[Image, Moment]]:
        for image in moment.disk.crashes(stride):
            key = (tuple(sorted(i for i in image.items() if i[0].suffix == ".jsonl")), moment.allowed)
            if key not in seen:
                seen.add(key)
                yield image, moment

    first = three_drivers(make({}))
    for moment in first:
        yield from fresh(moment, stride)
    for moment in first:
        for after in recoveries(moment.disk.kill(), moment):
            yield from fresh(after, 2 * stride)
        for image in moment.disk.crashes(40 * stride):
            for after in recoveries(make(image), moment):
                yield from fresh(after, 11 * stride)


def test_every_crash_state_loses_nothing_doubles_nothing_and_can_be_continued() -> None:
    checked = 0
    for image, moment in states(MemoryDisk.of, stride=1):
        goes_on(image, moment)
        checked += 1
    assert checked >= FEWEST_STATES


class NeverSynced(MemoryDisk):
    def sync(self, fd: int) -> None:
        self.after()


class NamesNeverSynced(MemoryDisk):
    def sync_folder(self, path: Path) -> None:
        self.after()


class TailNeverSettled(MemoryDisk):
    def rewrite(self, path: Path, offset: int, data: bytes) -> None:
        self.after()


@pytest.mark.parametrize("mutant", [NeverSynced, NamesNeverSynced, TailNeverSettled])
def test_a_ledger_that_left_out_a_sync_would_be_caught(mutant: type[MemoryDisk]) -> None:
    def check_all() -> None:
        for image, moment in states(mutant.of, stride=64):
            goes_on(image, moment)

    with pytest.raises((AssertionError, LedgerError)):
        check_all()
