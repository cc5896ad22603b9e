"""Decides how bytes become durable: the file operations of the ledger, behind a seam where tests inject faults."""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """The operating system's files. Every method raises OSError as the system does; none retries."""

    def create(self, path: Path) -> int:
        """A new file open for appending; FileExistsError if it exists (atomic, also on NFS ≥ 3)."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, fd: int, data: bytes) -> int:
        """Appends; may write less than all of `data`, e.g. on a full disk."""
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """Returns once data and length are on stable storage."""
        if hasattr(os, "fdatasync"):
            os.fdatasync(fd)
        else:  # macOS
            os.fsync(fd)

    def sync_folder(self, path: Path) -> None:
        """Makes created and renamed entries of a folder durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rewrite(self, path: Path, offset: int, data: bytes) -> None:
        """Writes bytes over equal bytes and syncs, so that what was only ever in the page cache reaches the disk."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, data, offset)
            self.sync(fd)
        finally:
            os.close(fd)

    def close(self, fd: int) -> None:
        os.close(fd)
