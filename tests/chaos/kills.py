"""Kills drivers at random points and says what came of it.

`python -m tests.chaos.kills FOLDER SEED KILLS` prints one JSON object. A driver is a fork of this process, so that what
is heavy is imported once. Half of the drivers are killed after a random time (mostly inside git or an evaluation),
half before or after a random operation on the ledger's disk.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from population.candidate import candidate_id
from population.events import Ended, Event, MutationDone, Proposed
from population.ledger import read_events
from population.replay import State
from population.repository import Repository
from tests.chaos.world import HookedDisk, World, are_records

_LONGEST_S = 0.45
"""A driver that is killed by the clock lives so long at most: about half of an undisturbed run."""
_MOST_OPERATIONS = 60


@dataclass
class Report:
    """What was done and what was found; everything in `violations` is a bug."""

    kills: int = 0
    drivers: int = 0
    runs: int = 0
    equal_populations: int = 0
    acknowledged: int = 0
    repeated_stages: int = 0
    most_repeated_by_one_driver: int = 0
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Death:
    """When a driver dies: after a time, or at its n-th operation on the disk."""

    after_s: float | None = None
    operation: int = 0
    before: bool = True


def draw(rng: random.Random, early: bool) -> Death:
    """Any moment; `early`: before a write."""
    if early:
        return Death(operation=rng.randint(1, 10))
    if rng.random() < 0.5:
        return Death(after_s=rng.uniform(0, _LONGEST_S))
    return Death(operation=rng.randint(1, _MOST_OPERATIONS), before=rng.random() < 0.5)


@dataclass
class Reporting:
    """Runs in the driver: tells the parent the hash of every record at the moment it counts, and dies when due."""

    pipe: int
    death: Death
    early: bool
    count: int = 0
    written: Path | int | bytes = b""

    def disk(self) -> HookedDisk:
        return HookedDisk(before=self._before, after=self._after)

    def _before(self, operation: str, subject: Path | int | bytes) -> None:
        if not self.early:
            self.count += 1
        elif operation == "write" and are_records(subject):
            self.count += 1
            self._tell(subject)
        self._die(True)

    def _after(self, operation: str, subject: Path | int | bytes) -> None:
        if operation == "write" and are_records(subject):
            self.written = subject
        elif operation == "touch" and self.written and not self.early:
            self._tell(self.written)
            self.written = b""
        self._die(False)

    def _tell(self, records: Path | int | bytes) -> None:
        assert isinstance(records, bytes)
        hashes = [json.loads(record)["hash"] for record in records.splitlines()]
        os.write(self.pipe, "".join(f"{one}\n" for one in hashes).encode("ascii"))

    def _die(self, before: bool) -> None:
        if self.count == self.death.operation and before == self.death.before:
            os.kill(os.getpid(), signal.SIGKILL)


def live(world: World, death: Death, early: bool = False) -> tuple[int, list[str]]:
    """One driver's life: how it ended (as `os.waitstatus_to_exitcode` says) and which records it was told are safe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            world.drive(Reporting(writing, death, early).disk())
            code = 0
        except BaseException:  # noqa: BLE001  # the parent must learn of it, and nothing of the parent may run here
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    told = _listen(reading, pid, death.after_s)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), told.decode("ascii").split()


def _listen(pipe: int, pid: int, after_s: float | None) -> bytes:
    """What the driver says until it ends, or is killed when its time is over."""
    deadline = None if after_s is None else time.monotonic() + after_s
    told = b""
    with os.fdopen(pipe, "rb", buffering=0) as reading:
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([reading], [], [], left_s)[0]:
                os.kill(pid, signal.SIGKILL)
                deadline = None
            elif chunk := reading.read(65536):
                told += chunk
            else:
                return told


def records(run_dir: Path) -> list[str]:
    """The hashes of all complete records on disk; with one driver at a time, all of them count."""
    lines = [line for s in sorted((run_dir / "ledger").glob("*.jsonl")) for line in s.read_bytes().split(b"\n")[:-1]]
    return [json.loads(line)["hash"] for line in lines]


class Chaos:
    """Kills the drivers of one world after another until there were enough kills."""

    def __init__(self, folder: Path, seed: int, early: bool = False) -> None:
        self._folder, self._rng, self._early = folder, random.Random(seed), early
        self.report = Report()

    def run(self, kills: int) -> Report:
        began = time.monotonic()
        while self.report.kills < kills:
            seed = self._rng.randrange(1000)
            calm = World(folder=self._folder / "calm", seed=seed)
            if live(calm, Death())[0] != 0:
                raise SystemExit("an undisturbed run failed")
            self._disturbed(World(folder=self._folder / "chaos", seed=seed), calm, kills)
            shutil.rmtree(self._folder)
        self.report.seconds = round(time.monotonic() - began, 1)
        return self.report

    def _disturbed(self, world: World, calm: World, kills: int) -> None:
        report, told, seen, code = self.report, list[str](), list[Event](), -signal.SIGKILL
        report.runs += 1
        while code != 0:
            death = draw(self._rng, self._early) if report.kills < kills else Death()
            code, fresh = live(world, death, self._early)
            told += fresh
            report.drivers += 1
            report.kills += code == -signal.SIGKILL
            self._require(code in (0, -signal.SIGKILL), f"a driver failed with code {code}, see above")
            if world.run_dir is not None:
                seen = self._compare(world.run_dir, told, seen)
            if report.violations:
                return
        report.acknowledged += len(told)
        self._finished(world, calm)

    def _compare(self, run_dir: Path, told: list[str], seen: list[Event]) -> list[Event]:
        """After a death: every acknowledged record is there, once, in order; what was read before reads the same."""
        found, events = records(run_dir), list(read_events(run_dir / "ledger"))
        self._require(
            [h for h in found if h in set(told)] == told, "acknowledged records are lost, doubled or reordered"
        )
        self._require(len(found) - len(told) <= self.report.drivers, "more than one unacknowledged record per driver")
        self._require(events[: len(seen)] == seen, "events that were read before read differently now")
        return events

    def _finished(self, world: World, calm: World) -> None:
        assert world.run_dir is not None
        events = list(read_events(world.run_dir / "ledger"))
        proposed = [e.proposal.number for e in events if isinstance(e, Proposed)]
        self._require(proposed == list(range(len(proposed))), "child numbers are not contiguous")
        ended = Counter(e.number for e in events if isinstance(e, Ended))
        self._require(ended == Counter(proposed), "a proposal did not end exactly once")
        self._require(not State.replay(events).pending, "children are pending although the run is over")
        repository = Repository.open(world.run_dir / "population.git")
        made = [e for e in events if isinstance(e, MutationDone)]
        self._require(all(repository.ref(candidate_id(e.number)) == e.commit for e in made), "a commit's ref differs")
        self._count_repeats(world)
        equal = world.population() == calm.population()
        self.report.equal_populations += equal
        self._require(equal, f"the population of seed {world.seed} differs from that of the undisturbed run")

    def _count_repeats(self, world: World) -> None:
        """Stages that a driver began although an earlier one had begun them."""
        before: set[tuple[str, ...]] = set()
        lives: dict[str, list[tuple[str, ...]]] = {}
        for process, *stage in world.stages():
            lives.setdefault(process, []).append(tuple(stage))
        for stages in lives.values():
            repeated = sum(stage in before for stage in stages)
            before.update(stages)
            self.report.repeated_stages += repeated
            self.report.most_repeated_by_one_driver = max(self.report.most_repeated_by_one_driver, repeated)
            self._require(repeated <= 1, f"one driver repeated {repeated} stages of the driver before")
            self._require(len(set(stages)) == len(stages), "one driver began a stage twice")

    def _require(self, fine: bool, otherwise: str) -> None:
        if not fine:
            self.report.violations.append(otherwise)


def main(folder: str, seed: str, kills: str, *flags: str) -> None:
    report = Chaos(Path(folder), int(seed), early="--acknowledge-early" in flags).run(int(kills))
    print(json.dumps(asdict(report)))
    sys.exit(bool(report.violations))


if __name__ == "__main__":
    main(*sys.argv[1:])
