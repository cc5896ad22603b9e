"""Decides what a ledger looks like to SQL: an index that may be thrown away, being made from the ledger at will.

It is keyed by the hash of the ledger's last record, which names the whole history. An index of another history, of
another version, or one that SQLite calls malformed is made again without a word. It is written beside its place and
renamed, then opened immutable: no locks, so that a cache folder on any file system will do. Damage to the ledger before
its last record is found by whoever replays it, not by a look at an index that was made earlier.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from population.archive import Archive
from population.candidate import Candidate, Child, candidate_id
from population.disk import Disk
from population.errors import InfrastructureError
from population.evaluation import Rejected, Scored
from population.event_json import decode, encode
from population.events import Ended, Event, FinalMeasured, Remeasured
from population.replay import State
from population.segments import last_hash, read_ledger

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE documents (name TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE events (
  seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, time_s REAL NOT NULL, active_s REAL NOT NULL, json TEXT NOT NULL
);
CREATE TABLE candidates (
  id TEXT PRIMARY KEY, number INTEGER NOT NULL, operator TEXT NOT NULL, parents TEXT NOT NULL, recipe TEXT, knobs TEXT,
  commit_sha TEXT, tree_sha TEXT, state TEXT NOT NULL, stage TEXT, reason TEXT, on_front INTEGER NOT NULL, cost_s REAL
);
CREATE TABLE estimates (
  candidate TEXT NOT NULL, objective TEXT NOT NULL, value REAL, low REAL, high REAL, n INTEGER NOT NULL,
  PRIMARY KEY (candidate, objective)
);
CREATE TABLE evaluations (
  seq INTEGER PRIMARY KEY, subject TEXT NOT NULL, trace TEXT NOT NULL, scored INTEGER NOT NULL,
  stage TEXT, reason TEXT, tier TEXT NOT NULL, elapsed_s REAL NOT NULL
);
CREATE TABLE metrics (
  seq INTEGER NOT NULL, name TEXT NOT NULL, repeat INTEGER NOT NULL, value REAL, PRIMARY KEY (seq, name, repeat)
) WITHOUT ROWID;
CREATE INDEX events_by_kind ON events (kind);
CREATE INDEX evaluations_by_subject ON evaluations (subject);
"""
_FORMAT = "1"
_ABANDONED_S = 3600.0

Describe = Callable[[Sequence[Event], State], Mapping[str, str]]
"""What else to keep with a history: name → JSON, computed from its events and the state they amount to."""


class Index:
    """A read-only view of one ledger at one moment. A context manager."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Use `open`."""
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, ledger: Path, cache: Path, describe: Describe, version: str, rebuild: bool = False) -> Index:
        """The index of a ledger as it is now, made first if there is none that fits.

        Args:
            cache: folder of this machine for indexes; never the run's own, which may be shared.
            version: of the program that computes documents; an index of another one is made again.

        Raises:
            LedgerError: the ledger is damaged before its tail (found whenever the index is made).
            InfrastructureError: the ledger cannot be read, or the index not written.
        """
        place = index_path(ledger, cache)
        key = f"{_FORMAT} {version} {last_hash(ledger, Disk())}"
        found = None if rebuild else _opened(place, key)
        if found is None:
            try:
                _build(ledger, place, describe, version)
                found = _connect(place)
            except (OSError, sqlite3.Error) as error:
                raise InfrastructureError(f"{place}: the index cannot be written: {error}; free some space") from error
        return cls(place, found)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a SELECT finds."""
        return self._connection.execute(query, values).fetchall()

    def document(self, name: str) -> Any:
        """What `describe` said about this history."""
        ((text,),) = self.rows("SELECT json FROM documents WHERE name = ?", name)
        return json.loads(text)

    def events(self, *kinds: str) -> Iterator[Event]:
        """The events of these kinds, in order."""
        marks = ", ".join("?" * len(kinds))
        for (text,) in self.rows(f"SELECT json FROM events WHERE kind IN ({marks}) ORDER BY seq", *kinds):
            yield decode(text.encode("ascii"))

    def close(self) -> None:
        """Release the file; idempotent."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def index_path(ledger: Path, cache: Path) -> Path:
    """Where the index of a ledger belongs."""
    place = hashlib.sha256(str(ledger.resolve()).encode("utf-8", errors="surrogateescape")).hexdigest()[:16]
    return cache / f"{ledger.resolve().parent.name}-{place}.sqlite"


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def _opened(path: Path, key: str) -> sqlite3.Connection | None:
    """The index if it is whole and has this key."""
    if not path.is_file():
        return None
    connection = _connect(path)
    with suppress(sqlite3.Error):
        found = connection.execute("SELECT value FROM meta WHERE key = 'history'").fetchall()
        if found == [(key,)] and connection.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]:
            return connection
    connection.close()
    return None


def _build(ledger: Path, place: Path, describe: Describe, version: str) -> None:
    reading = read_ledger(ledger, Disk())
    state = State.replay(reading.events)
    place.parent.mkdir(parents=True, exist_ok=True)
    _sweep(place)
    fresh = place.with_name(f"{place.name}.{os.urandom(8).hex()}.new")  # others may be making it, too
    try:
        with closing(sqlite3.connect(fresh)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = OFF")
            connection.executescript(_SCHEMA)
            with connection:
                history = f"{_FORMAT} {version} {reading.hash}"
                about = (("history", history), ("ledger", str(ledger.resolve())))
                connection.executemany("INSERT INTO meta VALUES (?, ?)", about)
                connection.executemany("INSERT INTO documents VALUES (?, ?)", describe(reading.events, state).items())
                _insert_events(connection, reading.events)
                _insert_candidates(connection, state)
        fresh.replace(place)
    finally:
        fresh.unlink(missing_ok=True)


def _sweep(place: Path) -> None:
    """What was left by those who were killed while they made this index."""
    for left in place.parent.glob(f"{place.name}.*.new"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                left.unlink()


def _insert_events(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
    rows = ((n, e.kind, e.time_s, e.active_s, encode(e).decode("ascii")) for n, e in enumerate(events))
    connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
    for number, event in enumerate(events):
        if isinstance(event, Ended):
            _insert_evaluation(connection, number, candidate_id(event.number), "search", event)
        elif isinstance(event, Remeasured) and event.evaluation is not None:
            _insert_evaluation(connection, number, event.candidate, "search", event)
        elif isinstance(event, FinalMeasured):
            _insert_evaluation(connection, number, event.subject, event.trace, event)


def _insert_evaluation(
    connection: sqlite3.Connection, seq: int, subject: str, trace: str, event: Ended | Remeasured | FinalMeasured
) -> None:
    assert event.evaluation is not None
    found = event.evaluation
    stage, reason = (str(found.stage), found.reason) if isinstance(found, Rejected) else (None, None)
    row = (seq, subject, trace, isinstance(found, Scored), stage, reason, found.tier, event.elapsed_s)
    connection.execute("INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    if isinstance(found, Scored):
        samples = found.samples.items()
        rows = ((seq, name, repeat, value) for name, values in samples for repeat, value in enumerate(values))
        connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?)", rows)


def _insert_candidates(connection: sqlite3.Connection, state: State) -> None:
    archive = state.archive
    front, scored, marks = set(archive.front), set(archive.scored), ", ".join("?" * 13)
    rows = []
    for proposal in (*(child.proposal for child in archive.children.values()), *state.pending.values()):
        name, child = proposal.id, archive.children.get(proposal.number)
        made = (child.commit, child.tree) if isinstance(child, Candidate) else (None, None)
        verdict = "scored" if name in scored else "pending" if child is None else "rejected"
        rows.append(
            (
                *(name, proposal.number, str(proposal.operator), json.dumps(proposal.parents), proposal.recipe),
                *(json.dumps(dict(proposal.knobs)), *made, verdict, *_refusal(archive, child)),
                *(name in front, child.cost_s if child is not None else None),
            )
        )
    connection.executemany(f"INSERT INTO candidates VALUES ({marks})", rows)
    estimates = (
        (name, objective, found.value, found.low, found.high, found.n)
        for name in archive.scored
        for objective, found in archive.estimates(name).items()
    )
    connection.executemany("INSERT INTO estimates VALUES (?, ?, ?, ?, ?, ?)", estimates)


def _refusal(archive: Archive, child: Child | None) -> tuple[str | None, str | None]:
    """Stage and reason of the last evaluation that rejected it."""
    if child is None:
        return None, None
    evaluations = archive.evaluations(child.id) if isinstance(child, Candidate) else (child.evaluation,)
    rejected = next((e for e in reversed(evaluations) if isinstance(e, Rejected)), None)
    return (str(rejected.stage), rejected.reason) if rejected is not None else (None, None)
