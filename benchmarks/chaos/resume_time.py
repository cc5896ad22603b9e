"""How long a driver takes to be where its ledger ends, and what an index of the ledger saves.

`python -m benchmarks.chaos.resume_time [--events 10000] [--repeats 15] [--output benchmarks/chaos/results.md]`

The ledger is one of children that became commits, three records each: every second one scored with 60 metrics of two
repeats, the others rejected with 500 characters of evidence. Each repeat opens it as a driver does (verify the chain,
decode, begin an epoch), and replays the state; an epoch more per repeat changes nothing that could be seen.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.chaos.kills import replace_section
from population.disk import Disk
from population.evaluation import Rejected, Scored, Stage
from population.events import Event
from population.index import Index
from population.ledger import Ledger, read_events
from population.replay import State
from tests.population.strategies import STARTED, child, scored

_MARK = "<!-- resume -->"
_SAMPLES = {f"{metric}_{i}@{load}": (1.5, 2.5) for metric in "abcde" for i in range(6) for load in ("high", "low")}


class _Unsynced(Disk):
    """Writing the ledger is not what is measured."""

    def sync(self, fd: int) -> None:
        pass


def make_ledger(folder: Path, events: int) -> None:
    """A ledger of at least so many events."""
    with Ledger.open(folder, disk=_Unsynced()) as ledger:
        ledger.append(STARTED)
        for number in range(-(-events // 3)):
            fine = Scored(samples={**_SAMPLES, **scored(10.0 + number % 97, 5.0 + number % 89).samples})
            broken = Rejected(stage=Stage.CHECKER, reason="wrong tokens", evidence="e" * 500)
            for event in child(number, fine if number % 2 == 0 else broken):
                ledger.append(event)


def timed(work: Callable[[], object], repeats: int) -> str:
    """Median and range in seconds, after one run that does not count."""
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return f"{statistics.median(seconds):.3f} | {min(seconds):.3f} to {max(seconds):.3f}"


def measure(folder: Path, repeats: int) -> dict[str, str]:
    """What → median and range."""
    ledger, cache = folder / "run" / "ledger", folder / "cache"

    def resume() -> None:
        with Ledger.open(ledger) as opened:
            State.replay(opened.events())

    def describe(events: object, state: State) -> dict[str, str]:
        return {"front": json.dumps(state.archive.front)}

    def indexed(rebuild: bool) -> list[tuple[object, ...]]:
        with Index.open(ledger, cache, describe, "benchmark", rebuild) as index:
            return index.rows("SELECT objective, value FROM estimates JOIN candidates ON id = candidate WHERE on_front")

    events: list[Event] = list(read_events(ledger))
    return {
        "resume: open the ledger as a driver and replay the state": timed(resume, repeats),
        "of it: read, verify and decode": timed(lambda: list(read_events(ledger)), repeats),
        "of it: replay": timed(lambda: State.replay(events), repeats),
        "make the SQLite index": timed(lambda: indexed(True), repeats),
        "use the SQLite index (the front's estimates)": timed(lambda: indexed(False), repeats),
    }


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vibeserve-resume-") as folder:
        ledger = Path(folder) / "run" / "ledger"
        make_ledger(ledger, given.events)
        size = sum(path.stat().st_size for path in ledger.glob("*.jsonl"))
        found = measure(Path(folder), given.repeats)
    head = f"{given.events:,} events, {size / 1e6:.1f} MB, {given.repeats} repeats.\n"
    rows = [f"| {what} | {figures} |" for what, figures in found.items()]
    text = "\n".join([head, "| what | median s | range s |", "|---|---|---|", *rows])
    print(text)
    if given.output is not None:
        replace_section(given.output, _MARK, text)


if __name__ == "__main__":
    main()
