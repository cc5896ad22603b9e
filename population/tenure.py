"""Decides who is the driver of a run: the one whose token is still there.

A lock keeps a second driver of the same run away. Where a lock cannot help (another host, a suspended driver), token
and segment do. A driver makes a token by a name that is its own, then its segment, exclusively. A successor makes the
next segment, removes every older token, and only then reads on; so whoever touches its token after a sync and finds it
knows that every successor will read what was synced. Tokens and segments are made, touched and removed by the file
server; "does the next segment exist?" would be answered from the client's cache on NFS.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from population.disk import Disk, write_failed
from population.errors import InfrastructureError, LedgerError
from population.segments import newest_epoch, segment_path

_LOCK = "lock"
_TOKEN = re.compile(r"(\d{6})-[0-9a-f]{16}\.alive", re.ASCII)


class Tenure:
    """One driver's hold on a ledger: `begin`, then `require` as often as it matters, then `end`."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.epoch = 0
        self._folder, self._disk = folder, disk
        self._name = os.urandom(8).hex()
        self._lock: int | None = None

    @property
    def segment(self) -> Path:
        """Where this driver's records go."""
        return segment_path(self._folder, self.epoch)

    @property
    def _token(self) -> Path:
        return self._folder / f"{self.epoch:06d}-{self._name}.alive"

    def lock(self, take_over: bool) -> None:
        """Keep others away, or be kept away; `take_over`: the other keeps its lock, on a file that nobody will find.

        Raises:
            LedgerError: another driver is running.
        """
        path = self._folder / _LOCK
        owner = f"pid {os.getpid()} on {socket.gethostname()}\n".encode("ascii", "replace")
        try:
            if take_over:
                self._disk.remove(path)
            self._lock = self._disk.lock(path, owner)
        except BlockingIOError:
            holder = self._disk.read(path, 0, 200).decode("ascii", errors="replace").strip()
            raise LedgerError(
                f"{self._folder}: expected to be the run's only driver, but {holder or 'another one'} is running; "
                "wait for it, or stop it with `vibeserve stop`. If it hangs or its host is lost: "
                "`vibeserve resume --take-over`"
            ) from None
        except OSError as error:
            write_failed(error, path)

    def begin(self) -> int:
        """The next epoch's segment, open for appending; from here on no older driver can acknowledge anything.

        Raises:
            LedgerError: another driver has begun it at the same time.
        """
        self.epoch = newest_epoch(self._folder, self._disk) + 1
        fd = None
        try:
            self._disk.close(self._disk.create(self._token))
            fd = self._disk.create(self.segment)
            self._disk.sync_folder(self._folder)
            for name in self._disk.names(self._folder):
                match = _TOKEN.fullmatch(name)
                if match is not None and int(match[1]) < self.epoch:
                    self._disk.remove(self._folder / name)
        except FileExistsError:
            self._disk.remove(self._token)
            raise LedgerError(
                f"{self.segment}: expected to begin this segment, but another driver has just begun it; run only one"
            ) from None
        except OSError as error:
            if fd is not None:
                self._disk.close(fd)
            write_failed(error, self.segment)
        return fd

    def require(self) -> None:
        """This is still the run's driver, and was when everything synced before was synced.

        Raises:
            LedgerError: another driver has taken over.
            InfrastructureError: the ledger was deleted, or cannot be reached.
        """
        try:
            self._disk.touch(self._token)
        except FileNotFoundError:
            self._replaced()
        except OSError as error:
            if error.errno == errno.ESTALE:
                self._replaced()
            write_failed(error, self._token)

    def end(self) -> None:
        """Let the next driver in; idempotent. A token that stays is removed by the next driver."""
        if self.epoch:
            with suppress(OSError):
                self._disk.remove(self._token)
        if self._lock is not None:
            self._disk.close(self._lock)
        self._lock = None

    def _replaced(self) -> NoReturn:
        newest = newest_epoch(self._folder, self._disk)
        if newest < self.epoch:
            raise InfrastructureError(
                f"{self.segment}: expected the run's ledger, but it was deleted while the run was going on"
            ) from None
        successor = segment_path(self._folder, max(newest, self.epoch + 1)).name
        raise LedgerError(
            f"{self.segment}: expected to be the newest segment, but {successor} exists: another driver has "
            "taken this run over. This driver stops; nothing that was acknowledged is lost"
        ) from None
