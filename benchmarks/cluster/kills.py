"""Kills drivers and workers at random points of runs on a Ray cluster, and counts what was lost, repeated, left over.

`python -m benchmarks.cluster.kills [--kills 30] [--seed 1] [--output benchmarks/cluster/kills.md]`
`   [--openevolve OEENV/bin/python --peer-bench ../shared/peer_bench]`

Ours: runs of the toy target with recorded measurements, eight evaluations at once on four nodes, each beside a real
server process.
A driver is killed by SIGKILL after a random time, and between two such kills a random worker; the run is resumed until
it is done, then another begins. What is counted comes from a log to which the evaluations, and the disk below the
ledger, append on their own (`tests/cluster/faults/ground.py`); the ledger is then compared with it.

OpenEvolve, for comparison: one run of its own with its default checkpoints, one SIGKILL, one resume.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cluster.peer_kill import GONE_WITHIN_S, PROGRAMS, PeerReport, kill_openevolve
from population.events import Ended, FinalMeasured, Remeasured
from population.ledger import read_events
from tests.chaos.world import population
from tests.cluster.faults.ground import Ground, Note, born
from tests.cluster.faults.machines import Machines
from tests.cluster.faults.reference import Reference
from tests.cluster.faults.world import World

_MARK = "<!-- kills -->"
_NODES, _CPUS, _CHILDREN, _DELAY_S = ("a", "b", "c", "d"), 2, 120, 0.5
_LONGEST_LIFE_S = 6.0
"""A driver is killed at the latest so long after its first sign of life."""


@dataclass
class Report:
    """What was done and what came of it; every field but the first five should be 0."""

    driver_kills: int = 0
    worker_kills: int = 0
    runs: int = 0
    children: int = 0
    finished: int = 0
    """Evaluations that had their result."""
    lost: int = 0
    """Of those that were on record, the ones that are not in the ledger at the end, or differ."""
    repeated: int = 0
    """Of those that were on record, the ones that were begun again."""
    died_on_the_way: int = 0
    """Results that no driver had on record yet when it was killed, or its worker was: measured again."""
    orphans: int = 0
    """Processes of evaluations that still lived `GONE_WITHIN_S` after the end of their driver."""
    never_run: int = 0
    other_populations: int = 0
    """Runs whose population differs from that of a fault-free run fed the same order of events."""
    slowest_end_s: float = 0.0
    """The longest that a process of an evaluation lived on after its driver was killed."""


class Kills:
    """Kills one run's drivers and workers after another's, until there were enough kills."""

    def __init__(self, folder: Path, machines: Machines, ground: Ground, seed: int) -> None:
        self._folder, self._machines, self._ground = folder, machines, ground
        self._rng, self.report = random.Random(seed), Report()

    def run(self, kills: int) -> Report:
        while self.report.driver_kills < kills:
            world = World(
                folder=self._folder / f"run-{self.report.runs}",
                ground=self._ground,
                children=_CHILDREN,
                delay_s=_DELAY_S,
                options=(f"seed={self._rng.randrange(1000)}",),
            )
            self._disturbed(world, kills)
            self._count(world)
            (self._ground.folder / "log").unlink()
            shutil.rmtree(world.folder)
        return self.report

    def _disturbed(self, world: World, kills: int) -> None:
        self.report.runs += 1
        over = False
        while not over:
            with world.driver(self._machines.address) as driver:
                before = len(self._ground.notes())
                while driver.poll() is None and len(self._ground.notes()) == before:
                    time.sleep(0.02)
                if self.report.driver_kills >= kills:
                    world.finish(driver)
                over = self._life(world, driver)
            self._after_death()
            print(f"{self.report.driver_kills} kills", file=sys.stderr, flush=True)

    def _life(self, world: World, driver: subprocess.Popen[str]) -> bool:
        """A driver's life from its first sign on; True if it came to its own end."""
        end = time.monotonic() + self._rng.uniform(0.0, _LONGEST_LIFE_S)
        if self._rng.random() < 0.5:
            time.sleep(self._rng.uniform(0.0, max(0.0, end - time.monotonic())))
            self._kill_worker()
        while driver.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        if driver.poll() is not None:
            assert driver.returncode == 0, f"a driver failed with code {driver.returncode}:\n{world.said()[-2000:]}"
            return True
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        self.report.driver_kills += 1
        return False

    def _kill_worker(self) -> None:
        """A worker in the middle of an evaluation."""
        begun = [n for n in self._ground.notes() if n.what == "begin" and born(n.processes[0][0]) == n.processes[0][1]]
        ended = {n.key for n in self._ground.notes() if n.what == "end"}
        running = [n for n in begun if n.key not in ended]
        if running:
            os.kill(self._rng.choice(running).processes[0][0], signal.SIGKILL)
            self.report.worker_kills += 1

    def _after_death(self) -> None:
        """How long its evaluations outlive a driver."""
        began = time.monotonic()
        while (left := self._ground.survivors()) and time.monotonic() - began < GONE_WITHIN_S:
            time.sleep(0.05)
        self.report.slowest_end_s = max(self.report.slowest_end_s, time.monotonic() - began)
        self.report.orphans += len(left)
        for pid, _ in left:
            os.kill(pid, signal.SIGKILL)

    def _count(self, world: World) -> None:
        report, notes, state = self.report, self._ground.notes(), world.state()
        recorded = Counter(note.key for note in notes if note.what == "record")
        ends = Counter(note.key for note in notes if note.what == "end")
        in_ledger = Counter(key for event in read_events(world.run_dir / "ledger") if (key := _measured(event)))
        report.children += len(state.archive.children)
        report.finished += sum(ends.values())
        report.lost += sum((recorded - in_ledger).values())
        report.repeated += _begun_again(notes) + sum((in_ledger - Counter(set(in_ledger))).values())
        report.died_on_the_way += sum((ends - in_ledger).values())
        report.never_run += world.children + 1 - len(state.archive.children) + len(state.pending)
        report.other_populations += population(state) != Reference(world.run_dir, world.folder / "again").population()


def _measured(event: object) -> str | None:
    """The key of the evaluation that the event is the result of."""
    match event:
        case Ended() if event.place is not None:
            return f"c{event.number:06d}"
        case Remeasured():
            return f"r{event.index:06d}"
        case FinalMeasured():
            return f"f-{event.subject}-{event.round}"
    return None


def _begun_again(notes: list[Note]) -> int:
    recorded: set[str] = set()
    again = 0
    for note in notes:
        if note.what == "record":
            recorded.add(note.key)
        again += note.what == "begin" and note.key in recorded
    return again


def table(ours: Report, theirs: PeerReport | None) -> str:
    """Both as one table."""
    none = "not run"
    rows: list[tuple[str, object, object]] = [
        ("SIGKILLs of the driver", ours.driver_kills, 1 if theirs else none),
        ("SIGKILLs of a worker", ours.worker_kills, 0 if theirs else none),
        ("runs, children", f"{ours.runs}, {ours.children:,}", f"1, {PROGRAMS}" if theirs else none),
        ("evaluations that finished", f"{ours.finished:,}", theirs.finished if theirs else none),
        ("finished and on record, then lost", ours.lost, theirs.finished - theirs.saved if theirs else none),
        ("finished and on record, then begun again", ours.repeated, "–"),
        ("finished while their driver or worker died, measured again", ours.died_on_the_way, "–"),
        (
            f"processes that outlived the main process by {GONE_WITHIN_S:g} s",
            ours.orphans,
            f"{theirs.orphans} of {theirs.workers}" if theirs else none,
        ),
        ("children never run", ours.never_run, "–"),
        ("runs whose population differs from the fault-free run's", ours.other_populations, "–"),
    ]
    lines = ["| what | VibeServe | OpenEvolve 0.4.0 |", "|---|---|---|"]
    lines += [f"| {what} | {mine} | {other} |" for what, mine, other in rows]
    return "\n".join(
        [*lines, "", f"The last process of an evaluation was gone {ours.slowest_end_s:.1f} s after its driver."]
    )


def main() -> None:
    """One table, and exit code 1 if anything of ours was lost, repeated, left over or never run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="SIGKILLs of drivers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--openevolve", type=Path, help="python of a virtual environment with openevolve==0.4.0")
    parser.add_argument("--peer-bench", type=Path, help="folder of the peers' workload")
    parser.add_argument("--output", type=Path, help="Markdown file with two marks; the table goes between them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vibeserve-kills-") as name:
        folder = Path(name)
        theirs = None
        if given.openevolve:
            theirs = kill_openevolve(given.openevolve, given.peer_bench, folder / "peer", given.seed)
        (folder / "ground").mkdir()
        machines = Machines(folder / "ground", _NODES, _CPUS)
        try:
            ours = Kills(folder, machines, Ground(folder / "ground"), given.seed).run(given.kills)
        finally:
            machines.close()
    text = table(ours, theirs)
    print(text)
    if given.output is not None:
        before, _, after = given.output.read_text(encoding="utf-8").split(_MARK)
        given.output.write_text(f"{before}{_MARK}\n{text}\n{_MARK}{after}", encoding="utf-8")
    wrong = (ours.lost, ours.repeated, ours.orphans, ours.never_run, ours.other_populations)
    sys.exit(any(wrong))


if __name__ == "__main__":
    main()
