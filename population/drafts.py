"""Decides how new files appear: whole, durable and in order under their names, or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from population.disk import Disk, write_failed

PREFIX = "tmp_"
"""Of files without a name yet; git's own have it too, and `git prune` removes them."""


@dataclass(frozen=True, slots=True)
class _Draft:
    folder: Path
    """Where it will be; made durable whether there is a file to put there or not."""
    name: str | None = None
    aside: Path | None = None
    fd: int | None = None


class Drafts:
    """Files of one round: `add` them, then `publish` all. One round of syncs for all data, one per folder for names.

    What was added first has its name first, durably: a file may rely on those that were added before it.
    """

    def __init__(self, aside: Path, disk: Disk, durable: bool) -> None:
        """`aside`: a folder of the same file system, for the time being."""
        self._aside, self._disk, self._durable = aside, disk, durable
        self._drafts: list[_Draft] = []

    def add(self, place: Path, data: bytes) -> None:
        """Write a file that is to appear at `place`.

        Raises:
            InfrastructureError: the disk is full or failed.
        """
        aside = self._aside / f"{PREFIX}{os.getpid()}_{os.urandom(6).hex()}"
        try:
            fd = self._disk.create(aside)
            self._drafts.append(_Draft(place.parent, place.name, aside, fd))
            if self._disk.write(fd, data) < len(data):  # a full disk takes a part
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.drop()
            write_failed(error, place)

    def rely_on(self, folder: Path) -> None:
        """The names that a folder has already must be durable too: another process may have been killed before that."""
        self._drafts.append(_Draft(folder))

    def publish(self) -> None:
        """Give every file its name.

        Raises:
            InfrastructureError: the disk is full or failed; some of the files may have their names.
        """
        place = self._aside
        try:
            if self._durable:
                self._disk.sync_all([draft.fd for draft in self._drafts if draft.fd is not None])
            for place, drafts in groupby(self._drafts, key=lambda draft: draft.folder):
                for draft in drafts:
                    if draft.aside is not None and draft.name is not None:
                        self._disk.rename(draft.aside, place / draft.name)
                if self._durable:
                    self._disk.sync_folder(place)
        except OSError as error:
            write_failed(error, place)
        finally:
            self.drop()

    def drop(self) -> None:
        """Forget what has no name yet; idempotent."""
        for draft in self._drafts:
            with suppress(OSError):
                if draft.fd is not None:
                    self._disk.close(draft.fd)
                if draft.aside is not None:
                    self._disk.remove(draft.aside)
        self._drafts.clear()
