"""The index says what the ledger says, and is made again whenever it does not fit, without a word."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from population.errors import InfrastructureError, LedgerError
from population.evaluation import Rejected, Stage
from population.events import Event, FinalMeasured, Proposed, Remeasured, RemeasureStarted
from population.index import Describe, Index, index_path
from population.ledger import Ledger, read_events
from population.replay import State
from tests.population.strategies import STARTED, child, scored

CHECKOUT = Path(__file__).resolve().parents[2]
DYING = """
import os, sys
from pathlib import Path
from population.index import Index
Index.open(Path(sys.argv[1]), Path(sys.argv[2]), lambda events, state: os._exit(9), "1")
"""
BAD = Rejected(stage=Stage.CHECKER, reason="wrong tokens")


class Describing:
    """Counts how often an index was made."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, events: Sequence[Event], state: State) -> Mapping[str, str]:
        self.made += 1
        return {"front": f'["{state.archive.front[0]}"]'}


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "ledger"
    with Ledger.open(folder) as writing:
        events = [STARTED, *child(0, scored(10.0, 5.0)), *child(1, scored(20.0, 4.0, math.inf)), *child(2, BAD)]
        events += [RemeasureStarted(index=0, candidate="c000001")]
        events += [Remeasured(index=0, candidate="c000001", evaluation=scored(21.0, 4.1)), child(3, BAD)[0]]
        events += [FinalMeasured(subject="c000001", evaluation=scored(19.0, 4.2))]
        for event in events:
            writing.append(event)
    return folder


def opened(ledger: Path, describe: Describe, version: str = "1", rebuild: bool = False) -> Index:
    return Index.open(ledger, ledger.parent.parent / "cache", describe, version, rebuild)


def test_every_table_says_what_the_ledger_says(ledger: Path) -> None:
    events = list(read_events(ledger))
    state = State.replay(events)
    with opened(ledger, Describing()) as index:
        assert list(index.events("proposed")) == [e for e in events if isinstance(e, Proposed)]
        assert index.rows("SELECT count(*), max(seq) FROM events") == [(len(events), len(events) - 1)]
        assert index.rows("SELECT id, state, stage, on_front FROM candidates ORDER BY number") == [
            ("c000000", "scored", None, "c000000" in state.archive.front),
            ("c000001", "scored", None, "c000001" in state.archive.front),
            ("c000002", "rejected", "checker", 0),
            ("c000003", "pending", None, 0),
        ]
        found = index.rows("SELECT value, low, high, n FROM estimates WHERE candidate = 'c000001' ORDER BY objective")
        estimates = state.archive.estimates("c000001")
        assert found == [(e.value, e.low, e.high, e.n) for _, e in sorted(estimates.items())]
        subjects = index.rows("SELECT subject, trace, scored, reason FROM evaluations ORDER BY seq")
        assert subjects[-2:] == [("c000001", "search", 1, None), ("c000001", "held-out", 1, None)]
        assert ("c000002", "search", 0, "wrong tokens") in subjects
        worst = "SELECT max(value) FROM metrics JOIN evaluations USING (seq) WHERE subject = 'c000001'"
        assert index.rows(worst) == [(math.inf,)]


def test_an_index_that_fits_is_used_and_one_that_does_not_is_made_again(ledger: Path) -> None:
    describe = Describing()
    for _ in range(2):
        with opened(ledger, describe) as index:
            assert index.document("front") == [State.replay(read_events(ledger)).archive.front[0]]
    assert describe.made == 1
    opened(ledger, describe, version="2").close()
    assert describe.made == 2
    opened(ledger, describe, version="2", rebuild=True).close()
    assert describe.made == 3
    with Ledger.open(ledger) as writing:
        writing.append(child(3, BAD)[1])
    with opened(ledger, describe, version="2") as index:
        assert index.rows("SELECT commit_sha IS NULL FROM candidates WHERE id = 'c000003'") == [(True,)]
    assert describe.made == 4


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "nonsense"])
def test_a_damaged_index_is_made_again_without_a_word(ledger: Path, damage: str) -> None:
    describe = Describing()
    with opened(ledger, describe) as index:
        path, wanted = index.path, index.rows("SELECT * FROM candidates")
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = bytes(byte ^ 0xFF for byte in data[100:-200])
    path.write_bytes(
        {
            "cut": data[:middle],
            "flipped": data[:100] + flipped + data[-200:],
            "emptied": b"",
            "nonsense": b"x" * len(data),
        }[damage]
    )
    with opened(ledger, describe) as index:
        assert index.rows("SELECT * FROM candidates") == wanted
    assert describe.made == 2


def test_a_record_that_is_being_written_does_not_change_the_index(ledger: Path) -> None:
    describe = Describing()
    opened(ledger, describe).close()
    with (ledger / "000001.jsonl").open("ab") as file:
        file.write(b'{"hash":"half')
    opened(ledger, describe).close()
    assert describe.made == 1


def test_a_damaged_ledger_is_an_error_when_the_index_is_made(ledger: Path) -> None:
    path = ledger / "000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b"wrong tokens", b"right tokens"))
    with pytest.raises(LedgerError, match="damaged"):
        opened(ledger, Describing())


def test_a_cache_that_cannot_be_written_is_the_machines_fault(ledger: Path) -> None:
    cache = ledger.parent.parent / "cache"
    cache.write_text("a file")
    with pytest.raises(InfrastructureError, match="the index cannot be written"):
        opened(ledger, Describing())


def test_two_runs_of_one_name_have_two_indexes(tmp_path: Path) -> None:
    paths = {index_path(tmp_path / place / "run" / "ledger", tmp_path) for place in ("a", "b")}
    assert len(paths) == 2


def test_any_number_may_make_an_index_at_once(ledger: Path) -> None:
    with opened(ledger, Describing()) as index:
        wanted = index.rows("SELECT * FROM candidates")

    def look(turn: int) -> list[tuple[object, ...]]:
        with opened(ledger, Describing(), version=str(turn % 2), rebuild=turn % 3 == 0) as index:
            return index.rows("SELECT * FROM candidates")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(look, range(32))) == [wanted] * 32
    assert [path.suffix for path in (ledger.parent.parent / "cache").iterdir()] == [".sqlite"]


def test_one_who_is_killed_while_making_an_index_leaves_no_half_of_it(ledger: Path) -> None:
    cache = ledger.parent.parent / "cache"
    died = subprocess.run([sys.executable, "-c", DYING, str(ledger), str(cache)], check=False, cwd=CHECKOUT)
    assert died.returncode == 9
    (left,) = cache.iterdir()
    assert left.suffix == ".new"
    opened(ledger, Describing()).close()
    assert left.exists(), "its maker may be alive"
    os.utime(left, (0, 0))
    opened(ledger, Describing(), rebuild=True).close()
    assert [path.suffix for path in cache.iterdir()] == [".sqlite"]


def test_the_runs_folder_is_only_read(ledger: Path) -> None:
    def seen() -> list[tuple[str, int, int]]:
        found = [ledger.parent, *ledger.parent.rglob("*")]
        return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in found)

    before = seen()
    opened(ledger, Describing(), rebuild=True).close()
    assert seen() == before
