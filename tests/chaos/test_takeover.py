"""Two drivers at once on a network file system without locks, in every order in which their operations can fall.

A client answers from its cache whatever NFS lets it: names of a folder are as old as the client's last own change to
that folder, and bytes leave the client when they are synced. What is made exclusively, touched or removed, the server
decides. However the operations interleave, what either driver acknowledged is in the ledger, once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import pytest

from population.disk import Disk
from population.errors import LedgerError
from population.events import Event, Faulted
from population.ledger import Ledger
from population.segments import read_ledger
from tests.chaos.memory_disk import MemoryDisk

FOLDER = Path("/run/ledger")
_DEADLINE_S = 20.0


class Turns:
    """Lets one of two threads go on at a time, in the order of a schedule; when that is used up, whoever comes."""

    def __init__(self, schedule: str) -> None:
        self._left = list(schedule)
        self._over: set[str] = set()
        self._changed = threading.Condition()

    def wait(self, who: str) -> None:
        with self._changed:
            while self._left and self._left[0] in self._over:
                self._left.pop(0)
            assert self._changed.wait_for(lambda: not self._left or self._left[0] == who, _DEADLINE_S)
            if self._left:
                self._left.pop(0)
            self._changed.notify_all()

    def leave(self, who: str) -> None:
        with self._changed:
            self._over.add(who)
            while self._left and self._left[0] in self._over:
                self._left.pop(0)
            self._changed.notify_all()


@dataclass
class Client(Disk):
    """One machine's view of a server that all see."""

    server: MemoryDisk
    turn: Callable[[], None] = field(default=lambda: None)
    _listed: dict[Path, list[str]] = field(default_factory=dict)
    _unsent: dict[int, bytes] = field(default_factory=dict)

    def make_folder(self, path: Path) -> None:
        pass

    def names(self, folder: Path) -> list[str]:
        if folder not in self._listed:
            self.turn()
            self._listed[folder] = self.server.names(folder)
        return self._listed[folder]

    def read(self, path: Path, offset: int, count: int | None) -> bytes:
        self.turn()
        return self.server.read(path, offset, count)

    def create(self, path: Path) -> int:
        self.turn()
        self._listed.pop(path.parent, None)
        return self.server.create(path)

    def write(self, fd: int, data: bytes) -> int:
        self._unsent[fd] = self._unsent.get(fd, b"") + data
        return len(data)

    def sync(self, fd: int) -> None:
        self.turn()
        self.server.write(fd, self._unsent.pop(fd, b""))
        self.server.sync(fd)

    def sync_folder(self, path: Path) -> None:
        pass

    def rewrite(self, path: Path, offset: int, data: bytes) -> None:
        pass

    def touch(self, path: Path) -> None:
        self.turn()
        self.server.touch(path)

    def remove(self, path: Path) -> None:
        self.turn()
        self._listed.pop(path.parent, None)
        self.server.remove(path)

    def lock(self, path: Path, owner: bytes) -> int | None:
        return None

    def close(self, fd: int) -> None:
        self.server.close(fd)


class AsksItsCache(Client):
    """What a driver would see that looked for the next segment instead of touching its token."""

    def touch(self, path: Path) -> None:
        newest = max((name for name in self.names(path.parent) if name.endswith(".jsonl")), default="")
        if newest[:6] > path.name[:6]:
            raise FileNotFoundError(path)


def fault(key: str) -> Event:
    return Faulted(key=key, reason="x", attempt=1)


def found(server: MemoryDisk) -> list[str]:
    return [event.key for event in read_ledger(FOLDER, server).events if isinstance(event, Faulted)]


def race(schedule: str, kind: type[Client] = Client) -> tuple[list[str], list[str]]:
    """What was acknowledged, and what the ledger says, after the old driver appends while the new one opens."""
    server, turns, acknowledged = MemoryDisk(), Turns(schedule), list[str]()
    old = kind(server)
    ledger = Ledger.open(FOLDER, disk=old)
    for key in ("a", "b"):
        ledger.append(fault(key))
        acknowledged.append(key)
    old.turn = lambda: turns.wait("o")

    def go_on() -> None:
        try:
            for key in ("c", "d"):
                ledger.append(fault(key))
                acknowledged.append(key)
        except LedgerError:
            pass
        finally:
            turns.leave("o")

    def take_over() -> None:
        try:
            with Ledger.open(FOLDER, disk=kind(server, lambda: turns.wait("n"))) as successor:
                seen = [event.key for event in successor.events() if isinstance(event, Faulted)]
                successor.append(fault("n"))
                acknowledged.append("n")
                assert seen == found(server)[: len(seen)]
        finally:
            turns.leave("n")

    threads = [threading.Thread(target=work) for work in (go_on, take_over)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_DEADLINE_S)
    assert not any(thread.is_alive() for thread in threads), schedule
    return acknowledged, found(server)


def schedules(old: int, new: int) -> Iterator[str]:
    """Every order of so many operations of the old driver and so many of the new one."""
    for places in combinations(range(old + new), old):
        yield "".join("o" if place in places else "n" for place in range(old + new))


def is_kept(acknowledged: list[str], ledger: list[str]) -> bool:
    return len(set(ledger)) == len(ledger) and set(acknowledged) <= set(ledger)


OLD_OPERATIONS, NEW_OPERATIONS = 4, 14


def test_in_no_order_of_operations_is_anything_lost_that_either_driver_acknowledged() -> None:
    survivors = set()
    for schedule in schedules(OLD_OPERATIONS, NEW_OPERATIONS):
        acknowledged, ledger = race(schedule)
        assert is_kept(acknowledged, ledger), schedule
        survivors.add("".join(sorted(acknowledged)))
    assert survivors >= {"abn", "abcn"}  # fenced before and after its first append


def test_a_driver_that_asked_its_cache_who_drives_would_lose_records() -> None:
    assert not all(is_kept(*race(s, AsksItsCache)) for s in schedules(2, 8))


@pytest.mark.parametrize(("schedule", "expected"), [("o" * 40, "abcdn"), ("n" * 40, "abn")], ids=["old", "new"])
def test_one_after_the_other(schedule: str, expected: str) -> None:
    acknowledged, ledger = race(schedule)
    assert "".join(acknowledged) == "".join(ledger) == expected
