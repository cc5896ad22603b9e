"""Decides how much of a disk a process tree takes: its folders, and files of theirs that have no name any more.

What it does not see: nameless files that are only mapped, or on their way through a socket; files of which every name
was moved out of the folders, where that is possible at all. Sparse files count with the blocks that they have.

Standard library only: the supervisor runs it without site-packages.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Container, Iterable, Iterator

_BLOCK_BYTES = 512


def disk_above(folders: Iterable[str], pids: Iterable[int], limit_bytes: int) -> bool:
    """Whether `folders`, and nameless files on their disks that `pids` hold open, take more than `limit_bytes`."""
    tops = list(folders)
    return sum(_named(tops)) + sum(nameless(pids, _devices(tops))) > limit_bytes


def _named(folders: list[str]) -> Iterator[int]:
    """Bytes of each file; a file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    for top in folders:
        for folder, _, names in os.walk(top):
            for name in names:
                with contextlib.suppress(OSError):
                    info = os.lstat(os.path.join(folder, name))
                    if info.st_nlink == 1 or (info.st_dev, info.st_ino) not in seen:
                        seen.add((info.st_dev, info.st_ino))
                        yield info.st_blocks * _BLOCK_BYTES


def nameless(pids: Iterable[int], devices: Container[int]) -> Iterator[int]:
    """Bytes of each file on `devices` that has no name any more and is held open."""
    seen: set[tuple[int, int]] = set()
    for pid in pids:
        for number in _descriptors(pid):
            with contextlib.suppress(OSError):
                info = os.stat(f"/proc/{pid}/fd/{number}")
                nameless = info.st_nlink == 0 and stat.S_ISREG(info.st_mode) and info.st_dev in devices
                if nameless and (info.st_dev, info.st_ino) not in seen:
                    seen.add((info.st_dev, info.st_ino))
                    yield info.st_blocks * _BLOCK_BYTES


def _devices(folders: list[str]) -> set[int]:
    found = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            found.add(os.stat(folder).st_dev)
    return found


def _descriptors(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(f"/proc/{pid}/fd")
    return []
