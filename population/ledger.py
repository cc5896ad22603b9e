"""Decides when an event counts: it is in the ledger, on stable storage, and no other driver has taken over.

One writer at a time. Its segment (`population.segments`) is created exclusively, and a lock keeps a second driver of
the same run away. Where a lock cannot help (another host, a suspended driver), the segment does: whoever creates the
next one has fenced all before it. An append is acknowledged only if, after it was synced, no newer segment existed; a
successor reads on only after it has created its own. So every acknowledged event is seen by every successor, and no
event of a fenced driver is acknowledged.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from population.disk import Disk
from population.errors import InfrastructureError, LedgerError
from population.events import EpochStarted, Event
from population.segments import (
    Reading,
    Record,
    make_first_record,
    make_record,
    newest_epoch,
    read_ledger,
    read_more,
    segment_path,
)

_LOCK = "lock"


def read_events(folder: Path) -> Iterator[Event]:
    """The events of a ledger that another process may be writing; takes no lock and changes nothing.

    Raises:
        LedgerError: damage before the tail.
        InfrastructureError: the files cannot be read.
    """
    yield from read_ledger(folder).events


class Ledger:
    """The writing end. `open` it, replay `events()`, then `append`. A context manager; used by one thread."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        """Use `Ledger.open`."""
        self._folder, self._disk = folder, disk
        self._reading = Reading()
        self._epoch = 0
        self._fd: int | None = None
        self._lock: int | None = None
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
        """Make an event durable; returns it as a replay will read it, which is what the caller applies.

        Raises:
            ValueError: the event cannot be recorded (a NaN); nothing was written and the ledger is as before.
            LedgerError: another driver has taken over; the event does not count.
            InfrastructureError: the write or the sync failed. It is not retried: after a failed sync the system may
                report success for data it has dropped. The ledger is `failed`.
        """
        if self._failure is not None or self._fd is None:
            raise InfrastructureError(f"{self._folder}: the ledger is closed: {self._failure or 'close() was called'}")
        stamped = replace(event, time_s=time.time(), active_s=time.monotonic() - self._opened)
        record = make_record(stamped, self._reading)
        self._require_ours()
        self._write(self._fd, record)
        return record.event

    def close(self) -> None:
        """Release the files; idempotent."""
        for fd in (self._fd, self._lock):
            if fd is not None:
                self._disk.close(fd)
        self._fd = self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, take_over: bool) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._disk.sync_folder(self._folder.parent)
        except OSError as error:
            raise InfrastructureError(f"{self._folder}: cannot be created: {error.strerror}") from error
        self._take_lock(take_over)
        self._reading = read_ledger(self._folder)
        self._epoch = newest_epoch(self._folder) + 1
        self._fd = self._create()
        self._read_again()
        self._settle_tail()
        event = EpochStarted(epoch=self._epoch, host=socket.gethostname(), pid=os.getpid(), time_s=time.time())
        record = make_first_record(event, self._reading)
        self._reading.enter(self._path)
        self._write(self._fd, record)

    def _read_again(self) -> None:
        """What the previous driver was told is durable was written before our segment existed, so it is there now."""
        if self._reading.segment == segment_path(self._folder, self._epoch - 1):
            read_more(self._reading)
        else:  # a segment in between may have got its first record since
            self._reading = read_ledger(self._folder, before=self._epoch)

    @property
    def _path(self) -> Path:
        return segment_path(self._folder, self._epoch)

    def _take_lock(self, take_over: bool) -> None:
        try:
            self._lock = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except OSError as error:
            self._fail(error, self._folder / _LOCK)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not take_over:
                holder = os.pread(self._lock, 200, 0).decode("ascii", errors="replace").strip()
                raise LedgerError(
                    f"{self._folder}: expected to be the run's only driver, but {holder or 'another one'} is running; "
                    "wait for it, or stop it with `vibeserve stop`"
                ) from None
        except OSError:
            return  # a file system without locks: the exclusive segment still decides
        else:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"pid {os.getpid()} on {socket.gethostname()}\n".encode("ascii", "replace"), 0)

    def _create(self) -> int:
        try:
            fd = self._disk.create(self._path)
            self._disk.sync_folder(self._folder)
        except FileExistsError:
            raise LedgerError(
                f"{self._path}: expected to begin this segment, but another driver has just begun it; run only one"
            ) from None
        except OSError as error:
            self._fail(error, self._path)
        return fd

    def _settle_tail(self) -> None:
        """The previous segment's last record may have missed its sync: write it again before building on it."""
        path, start, end = self._reading.segment, self._reading.last_start, self._reading.end
        if path is None:
            return
        try:
            with path.open("rb") as file:
                file.seek(start)
                data = file.read(end - start)
            self._disk.rewrite(path, start, data)
        except OSError as error:
            self._fail(error, path)

    def _write(self, fd: int, record: Record) -> None:
        try:
            written = self._disk.write(fd, record.line)
            if written < len(record.line):  # a full disk takes a part; the rest would not fit either
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._disk.sync(fd)
        except OSError as error:
            self._fail(error, self._path)
        except BaseException:  # what the disk holds is unknown: nothing may follow it
            self._failure = f"{self._path}: interrupted in the middle of a record"
            raise
        self._require_ours()
        self._reading.take(record)

    def _fail(self, error: OSError, path: Path) -> NoReturn:
        self._failure = f"{path}: {error.strerror or error}"
        cure = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the disk"
        raise InfrastructureError(
            f"{path}: expected a durable record, but writing failed: {error.strerror or error}. "
            f"Everything acknowledged before is safe; {cure}, then `vibeserve resume`"
        ) from error

    def _require_ours(self) -> None:
        successor = segment_path(self._folder, self._epoch + 1)
        if successor.exists():
            self._failure = f"fenced by {successor.name}"
            raise LedgerError(
                f"{self._path}: expected to be the newest segment, but {successor.name} exists: another driver has "
                "taken this run over. This driver stops; nothing that was acknowledged is lost"
            )
        if self._fd is not None and os.fstat(self._fd).st_nlink == 0:
            self._failure = "the segment was deleted"
            raise InfrastructureError(
                f"{self._path}: expected the run's ledger, but it was deleted while the run was going on"
            )
