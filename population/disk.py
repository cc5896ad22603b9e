"""Decides how bytes become durable: the file operations of ledger and repository, a seam for faults and crashes."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import NoReturn

from population.errors import InfrastructureError

_SYNCS_AT_ONCE = 8


@cache
def _threads() -> ThreadPoolExecutor:
    """Kept: to start threads costs more than to sync a small file."""
    return ThreadPoolExecutor(_SYNCS_AT_ONCE, thread_name_prefix="sync")


os.register_at_fork(after_in_child=_threads.cache_clear)  # threads are not forked


class Disk:
    """The operating system's files. Every method raises OSError as the system does; none retries."""

    def make_folder(self, path: Path) -> None:
        """With its parents; whichever of them was missing is durable."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        path.mkdir(exist_ok=True)
        self.sync_folder(path.parent)

    def names(self, folder: Path) -> list[str]:
        """The entries of a folder, in any order."""
        return os.listdir(folder)

    def read(self, path: Path, offset: int, count: int | None) -> bytes:
        """At most `count` bytes (None: all) from `offset` on."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            left = max(0, os.fstat(fd).st_size - offset) if count is None else count
            parts = []
            while left > 0 and (part := os.pread(fd, left, offset)):
                parts.append(part)
                offset, left = offset + len(part), left - len(part)
            return b"".join(parts)
        finally:
            os.close(fd)

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

    def sync_all(self, fds: Sequence[int]) -> None:
        """`sync` of each, side by side: the system settles many in little more than the time of one."""
        if len(fds) < 2:
            for fd in fds:
                self.sync(fd)
            return
        syncs = [_threads().submit(self.sync, fd) for fd in fds]
        wait(syncs)  # all of them, before the first that failed is reported: their files will be closed
        for done in syncs:
            done.result()

    def rename(self, source: Path, target: Path) -> None:
        """Gives a file another name; whatever had that name is replaced, at once."""
        source.rename(target)

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

    def touch(self, path: Path) -> None:
        """Sets a file's times; the server of a network file system is asked, whatever this client has cached.

        Raises:
            FileNotFoundError: the file is gone, or (ESTALE as OSError) another client removed it.
        """
        os.utime(path)

    def remove(self, path: Path) -> None:
        """Removes a file; it may be missing."""
        path.unlink(missing_ok=True)

    def lock(self, path: Path, owner: bytes) -> int | None:
        """Locks a file until `close` or the process's end, and writes the owner into it; None: no locks on this system.

        Raises:
            BlockingIOError: another process holds the lock.
        """
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise
        except OSError:
            os.close(fd)
            return None
        os.ftruncate(fd, 0)
        os.pwrite(fd, owner, 0)
        return fd

    def close(self, fd: int) -> None:
        os.close(fd)


def sync_tree(folder: Path, disk: Disk) -> None:
    """Makes everything in and below a folder durable, and its own name.

    Raises:
        OSError: something could not be written.
    """
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    disk.sync(fd)
                finally:
                    disk.close(fd)
        disk.sync_folder(Path(root))
    disk.sync_folder(folder.parent)


def write_failed(error: OSError, path: Path) -> NoReturn:
    """The one message for a disk that is full or broken.

    Raises:
        InfrastructureError: always.
    """
    cure = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the disk"
    raise InfrastructureError(
        f"{path}: expected it to become durable, but writing failed: {error.strerror or error}. "
        f"Everything acknowledged before is safe; {cure}, then `vibeserve resume`"
    ) from error
