"""Decides when an event counts: it is in the ledger, on stable storage, and no other driver has taken over.

One writer at a time (`population.tenure`), one segment per writer (`population.segments`). An append is acknowledged
only if its driver was still the run's driver after the record was synced, and a successor reads on only after it has
fenced all drivers before it. So every acknowledged event is seen by every successor, and no event of a fenced driver is
acknowledged.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from population.disk import Disk, write_failed
from population.errors import InfrastructureError, VibeServeError
from population.events import EpochStarted, Event
from population.records import Record, make_first_record, make_records
from population.segments import Reading, read_ledger, read_more, segment_path
from population.tenure import Tenure


def read_events(folder: Path) -> Iterator[Event]:
    """The events of a ledger that another process may be writing; takes no lock and changes nothing.

    Raises:
        LedgerError: damage before the tail.
        InfrastructureError: the files cannot be read.
    """
    yield from read_ledger(folder, Disk()).events


class Ledger:
    """The writing end. `open` it, replay `events()`, then append. A context manager; used by one thread."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        """Use `Ledger.open`."""
        self._folder, self._disk = folder, disk
        self._tenure = Tenure(folder, disk)
        self._reading = Reading()
        self._fd: int | None = None
        self._opened = time.monotonic()
        self._failure: str | None = None

    @classmethod
    def open(cls, folder: Path, take_over: bool = False, disk: Disk | None = None) -> Ledger:
        """Begin the next epoch of a ledger, new or not; its first event is an `EpochStarted`.

        Args:
            take_over: go on although another driver holds the lock (it is fenced, and told so at its next append).
            disk: the seam for tests.

        Raises:
            LedgerError: damage before the tail, or another driver is running.
            InfrastructureError: the disk is full or failed.
        """
        ledger = cls(folder, disk or Disk())
        try:
            ledger._begin(take_over)
        except BaseException:
            ledger.close()
            raise
        return ledger

    @property
    def failed(self) -> bool:
        """Whether an append has failed; from then on all are refused, because what the disk holds is unknown."""
        return self._failure is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped while opening (records that were never acknowledged), in words."""
        return tuple(self._reading.notes)

    @property
    def last_hash(self) -> str:
        """Hash of the last record: names the whole history."""
        return self._reading.hash

    def events(self) -> Iterator[Event]:
        """Every event so far, this epoch's among them."""
        return iter(tuple(self._reading.events))

    def append(self, event: Event) -> Event:
        """`append_all` of one event."""
        return self.append_all((event,))[0]

    def append_all(self, events: Sequence[Event]) -> tuple[Event, ...]:
        """Make events durable, by one write and one sync; returns them as a replay will read them.

        The caller applies what is returned. After a crash a replay finds a prefix of the events, so they must make
        sense in their order; none of them counts before this returns.

        Raises:
            ValueError: an event cannot be recorded (a NaN); nothing was written and the ledger is as before.
            LedgerError: another driver has taken over; the events do not count.
            InfrastructureError: the write or the sync failed. It is not retried: after a failed sync the system may
                report success for data it has dropped. The ledger is `failed`.
        """
        if not events:
            return ()
        self.require_ours()
        now_s, active_s = time.time(), time.monotonic() - self._opened
        records = make_records(
            [replace(event, time_s=now_s, active_s=active_s) for event in events], self._reading.chain
        )
        self._write(records)
        return tuple(record.event for record in records)

    def require_ours(self) -> None:
        """Whether this driver is still the run's driver; cheap, to be asked before anything that has effects.

        Raises:
            LedgerError: another driver has taken over.
            InfrastructureError: the ledger has failed before, or was closed or deleted.
        """
        if self._failure is not None or self._fd is None:
            raise InfrastructureError(f"{self._folder}: the ledger is closed: {self._failure or 'close() was called'}")
        try:
            self._tenure.require()
        except VibeServeError as error:
            self._failure = str(error)
            raise

    def close(self) -> None:
        """Release the files; idempotent."""
        if self._fd is not None:
            self._disk.close(self._fd)
        self._fd = None
        self._tenure.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, take_over: bool) -> None:
        try:
            self._disk.make_folder(self._folder)
            self._disk.sync_folder(self._folder.parent)
        except OSError as error:
            write_failed(error, self._folder)
        self._tenure.lock(take_over)
        self._reading = read_ledger(self._folder, self._disk)
        self._fd = self._tenure.begin()
        self._read_again()
        self._settle_tail()
        event = EpochStarted(epoch=self._tenure.epoch, host=socket.gethostname(), pid=os.getpid(), time_s=time.time())
        record = make_first_record(event, self._reading.chain, self._reading.seal)
        self._reading.enter(self._tenure.segment)
        self._write([record])

    def _read_again(self) -> None:
        """What an older driver was told is durable was synced before its token was removed: it is there now."""
        if self._reading.segment == segment_path(self._folder, self._tenure.epoch - 1):
            read_more(self._reading, self._disk)
        else:  # a segment in between may have got its first record since
            self._reading = read_ledger(self._folder, self._disk, before=self._tenure.epoch)

    def _settle_tail(self) -> None:
        """The previous segment's last append may have missed its sync: write it again before building on it."""
        path, start, end = self._reading.segment, self._reading.last_start, self._reading.end
        if path is None:
            return
        try:
            self._disk.rewrite(path, start, self._disk.read(path, start, end - start))
        except OSError as error:
            write_failed(error, path)

    def _write(self, records: Sequence[Record]) -> None:
        assert self._fd is not None
        self._failure = f"{self._tenure.segment}: interrupted in the middle of a record"
        data = b"".join(record.line for record in records)
        try:
            written = self._disk.write(self._fd, data)
            if written < len(data):  # a full disk takes a part; the rest would not fit either
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._disk.sync(self._fd)
        except OSError as error:
            self._failure = f"{self._tenure.segment}: {error.strerror or error}"
            write_failed(error, self._tenure.segment)
        self._failure = None
        self.require_ours()
        for record in records:
            self._reading.take(record)
