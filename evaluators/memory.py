"""Decides how much memory a process tree takes: its pages, shared ones once, and files in memory that it holds open.

What it does not see: System V segments that nobody has attached (refused by the filter where this is all that watches),
and files with names in private temporary folders (which have sizes of their own). A file in memory that is held open
and mapped, too, counts twice: nobody can tell which pages of it are mapped.

Standard library only: the supervisor runs it without site-packages.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from functools import cache

from evaluators.disk import nameless

_KIBIBYTE = 1024
_RESIDENT, _PROPORTIONAL = (b"RssAnon:", b"RssShmem:"), (b"Pss_Anon:", b"Pss_Shmem:")


def memory_above(pids: Iterable[int], limit_bytes: int) -> bool:
    """Whether these processes hold more than `limit_bytes`; pages of files on disks can be had back and do not count.

    The exact answer is slow, so it is asked only when resident pages, shared ones counted for each, suggest it.
    """
    listed = list(pids)
    left_bytes = limit_bytes - sum(nameless(listed, _memory_devices()))
    if sum(_resident_bytes(pid) for pid in listed) <= left_bytes:
        return False
    return sum(_proportional_bytes(pid) for pid in listed) > left_bytes


def _resident_bytes(pid: int) -> int:
    return sum(_values(f"/proc/{pid}/status", _RESIDENT))


def _proportional_bytes(pid: int) -> int:
    found = list(_values(f"/proc/{pid}/smaps_rollup", _PROPORTIONAL))
    return sum(found) if len(found) == len(_PROPORTIONAL) else _resident_bytes(pid)


def _values(path: str, names: tuple[bytes, ...]) -> Iterator[int]:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        for line in file:
            if line.startswith(names):
                yield int(line.split()[1]) * _KIBIBYTE


@cache
def _memory_devices() -> frozenset[int]:
    """Where the kernel keeps files in memory without a name (memfd_create, shared anonymous pages)."""
    descriptor = os.memfd_create("vibeserve")
    try:
        return frozenset({os.fstat(descriptor).st_dev})
    finally:
        os.close(descriptor)
