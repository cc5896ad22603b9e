"""Decides what a ledger on disk says: which segments and records count, what is torn, void or damaged.

Which segments count follows backwards from the newest one whose first record is complete. Each append is written
and synced before the next begins, so only the last group of a segment can be incomplete: *torn* is a line without a
line end, or with a sector of zeros (its length reached the disk, its data did not). It was never acknowledged and is
dropped, with what follows it in its group.
Anything else that does not match its hash is *damage*, and damage stops the reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from population.disk import Disk
from population.errors import InfrastructureError, LedgerError
from population.event_json import decode
from population.events import Event
from population.records import GENESIS, LINE, Chain, Record, Seal, digest

_SECTOR_BYTES = 512
_NAME = re.compile(r"(\d{6})\.jsonl", re.ASCII)


@dataclass(slots=True, kw_only=True)
class Reading:
    """How far a ledger has been read or written."""

    events: list[Event] = field(default_factory=list)
    hash: str = GENESIS
    """Of the last record; `len(events)` is the next one's `seq`."""
    segment: Path | None = None
    """The newest segment that counts."""
    lines: int = 0
    """Complete records in it."""
    last_start: int = 0
    """Where in it the last append begins, and below where its last complete record ends, in bytes."""
    end: int = 0
    first: int = 0
    """`seq` of the record that the last append begins with."""
    notes: list[str] = field(default_factory=list)
    """What was dropped, in words."""

    @property
    def chain(self) -> Chain:
        """What the next record continues."""
        return Chain(len(self.events), self.hash)

    @property
    def seal(self) -> Seal | None:
        """What a successor writes into its first record."""
        return Seal(segment=self.segment.name, bytes=self.end, hash=self.hash) if self.segment else None

    def enter(self, segment: Path) -> None:
        """What follows is in another segment."""
        self.segment, self.lines, self.last_start, self.end = segment, 0, 0, 0

    def take(self, record: Record) -> None:
        """The record is the next one of the segment."""
        if record.alone:
            self.last_start, self.first = self.end, len(self.events)
        self.events.append(record.event)
        self.hash = record.hash
        self.lines += 1
        self.end += len(record.line)


def segment_path(folder: Path, epoch: int) -> Path:
    return folder / f"{epoch:06d}.jsonl"


def newest_epoch(folder: Path, disk: Disk) -> int:
    """The highest segment number in use, complete or not; 0 for none."""
    return max(_epochs(folder, disk), default=0)


def last_hash(folder: Path, disk: Disk) -> str:
    """Hash of the last complete record as it stands there, unverified; "" where only `read_ledger` can tell.

    Raises:
        InfrastructureError: the files cannot be read.
    """
    for epoch in reversed(_epochs(folder, disk)):
        data = _read(segment_path(folder, epoch), disk, 0, None)
        *_, line, _ = (b"", *data.split(b"\n"))
        if line:
            match = LINE.fullmatch(line)
            return match["hash"].decode("ascii") if match is not None else ""
    return ""


def read_ledger(folder: Path, disk: Disk, before: int | None = None) -> Reading:
    """Verify and decode everything that counts, in the segments of epochs < `before`.

    Raises:
        LedgerError: damage before the tail; names file, line, what was expected and what to do.
        InfrastructureError: the files cannot be read.
    """
    reading = Reading()
    for path, limit in _chain(folder, disk, before, reading.notes):
        reading.enter(path)
        _read_segment(path, disk, limit, reading)
    return reading


def read_more(reading: Reading, disk: Disk) -> None:
    """Take in what was appended to the newest segment since."""
    if reading.segment is not None:
        reading.notes = [note for note in reading.notes if not note.startswith(f"{reading.segment}: dropped")]
        _read_segment(reading.segment, disk, None, reading)


def _epochs(folder: Path, disk: Disk) -> list[int]:
    try:
        return sorted(int(m[1]) for m in map(_NAME.fullmatch, disk.names(folder)) if m)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InfrastructureError(f"{folder}: cannot be listed: {error.strerror}") from error


def _chain(folder: Path, disk: Disk, before: int | None, notes: list[str]) -> list[tuple[Path, int | None]]:
    """The segments that count, oldest first, each with the bytes that count (None: all that are complete)."""
    paths = [segment_path(folder, epoch) for epoch in _epochs(folder, disk) if before is None or epoch < before]
    chain: list[tuple[Path, int | None]] = []
    limit, wanted = None, None
    while paths:
        path = paths.pop()
        if wanted is not None and path.name != wanted:
            notes.append(f"{path}: ignored, another driver had replaced its driver before anything was acknowledged")
            continue
        first = _first_record(path, disk)
        if first is None and wanted is None:
            notes.append(f"{path}: ignored, its driver ended before anything was acknowledged")
            continue
        if first is None or first["seal"] is None:
            _damaged(path, 1, "a first record with a 'seal'", "none")
        chain.append((path, limit))
        if first["seal"] == b"null":
            return chain[::-1]
        limit, wanted = int(first["bytes"]), first["segment"].decode("ascii")
    if wanted is not None:
        _damaged(folder / wanted, None, "this segment, because a later one goes on from it", "no such file")
    return []


def _first_record(path: Path, disk: Disk) -> re.Match[bytes] | None:
    """The first line, or None if it is incomplete."""
    data = _read(path, disk, 0, 1 << 16)
    line = data[: data.find(b"\n") + 1]
    if not line or _has_empty_sector(line, 0):
        return None
    match = LINE.fullmatch(line[:-1])
    previous = match["last"] or GENESIS.encode("ascii") if match is not None else b""
    if match is None or match["hash"].decode("ascii") != digest(previous, match["body"]):
        _damaged(path, 1, "a first record that matches its hash", _shown(line))
    return match


def _read_segment(path: Path, disk: Disk, limit: int | None, reading: Reading) -> None:
    """Take in the records from `reading.end` on."""
    offset = reading.end
    data = _read(path, disk, offset, None if limit is None else max(0, limit - offset))
    start = offset
    for line in _lines(data):
        match = LINE.fullmatch(line[:-1])
        if match is None or line[-1:] != b"\n" or not _continues(match, reading):
            if limit is None and _is_torn(data[start - offset :], reading):
                dropped = offset + len(data) - start
                reading.notes.append(f"{path}: dropped {dropped} bytes that were never acknowledged")
                return
            expected = f"record {len(reading.events)} that continues {reading.hash[:12]}…"
            _damaged(path, reading.lines + 1, expected, _shown(line))
        reading.take(_checked(match, line, path, reading))
        start = reading.end
    if limit is not None and reading.end != limit:
        _damaged(path, None, f"{limit} bytes, because the next segment goes on from there", f"{reading.end}")


def _continues(match: re.Match[bytes], reading: Reading) -> bool:
    if int(match["seq"]) != len(reading.events):
        return False
    return bool(match["hash"].decode("ascii") == digest(reading.hash.encode("ascii"), match["body"]))


def _checked(match: re.Match[bytes], line: bytes, path: Path, reading: Reading) -> Record:
    number = reading.lines + 1
    if (match["seal"] is not None) != (number == 1):
        _damaged(path, number, "a 'seal' in the first record of a segment and in no other", _shown(line))
    if match["first"] is not None and (number == 1 or int(match["first"]) != reading.first):
        _damaged(path, number, f"a record of the group that begins with {reading.first}", _shown(line))
    if match["last"] is not None and match["last"].decode("ascii") != reading.hash:
        _damaged(path, number, f"a seal with hash {reading.hash[:12]}…", match["last"][:12].decode("ascii"))
    try:
        event = decode(match["event"])
    except ValueError as error:
        raise LedgerError(
            f"{path}: line {number}: intact, but not an event that this version knows: {error}. "
            "Use the version of vibeserve that wrote the run"
        ) from error
    return Record(line=line, hash=match["hash"].decode("ascii"), event=event, alone=match["first"] is None)


def _is_torn(tail: bytes, reading: Reading) -> bool:
    """Whether what follows `reading` was cut off while it was written, as opposed to changed afterwards.

    It is one append's: its first line is torn, and each further one is torn too, or whole and of the same group.
    """
    start, seq = reading.end, len(reading.events)
    for line in _lines(tail):
        whole = LINE.fullmatch(line[:-1]) if line[-1:] == b"\n" else None
        grouped = whole is not None and whole["first"] is not None
        same = start > reading.end and grouped and int(whole["first"]) <= seq < int(whole["seq"])  # type: ignore[index]
        if not same and not _has_empty_sector(line, start) and not _is_cut(line, reading):
            return False
        start += len(line)
    return True


def _is_cut(line: bytes, reading: Reading) -> bool:
    body = LINE.fullmatch(line[:-1])  # a whole record before a wrong line end was complete once
    return line[-1:] != b"\n" and not (body is not None and _continues(body, reading))


def _lines(data: bytes) -> Iterator[bytes]:
    """Each line with its line end; the last may have none."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end


def _has_empty_sector(line: bytes, start: int) -> bool:
    """Whether a sector of the file holds only zeros where the line, which begins at `start`, covers it."""
    cuts = [0, *range(_SECTOR_BYTES - start % _SECTOR_BYTES, len(line), _SECTOR_BYTES), len(line)]
    return any(not line[a:b].strip(b"\0") for a, b in pairwise(cuts))


def _read(path: Path, disk: Disk, offset: int, count: int | None) -> bytes:
    try:
        return disk.read(path, offset, count)
    except OSError as error:
        raise InfrastructureError(f"{path}: cannot be read: {error.strerror}") from error


_CURE = "Restore the ledger folder from a backup, or start a new run; the commits in population.git are not affected"


def _shown(line: bytes) -> str:
    return repr(line[:60])[1:] + ("…" if len(line) > 60 else "")


def _damaged(path: Path, line: int | None, expected: str, got: str) -> NoReturn:
    where = f"{path}: line {line}" if line is not None else str(path)
    raise LedgerError(f"{where}: the ledger is damaged: expected {expected}, got {got}. {_CURE}")
