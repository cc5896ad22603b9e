"""Decides which processes descend from this one, and who among them gets a signal.

Standard library only: the supervisor runs it without site-packages.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator


def descendants(root: int | None = None) -> list[int]:
    """All live processes below `root` (None: this process), parents before children."""
    root = root or os.getpid()
    children = _children if os.path.exists(f"/proc/{root}/task/{root}/children") else _all_children().get
    found: list[int] = []
    queue = [root]
    while queue:
        below = children(queue.pop(), [])
        found += below
        queue += below
    return found


def _children(pid: int, default: list[int]) -> list[int]:
    """From the kernel's own lists, which not every kernel keeps; costs nothing for the rest of the machine."""
    found: list[int] = []
    for task in _tasks(pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children", "rb") as file:
            found += map(int, file.read().split())
    return found or default


def _all_children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for pid, parent in parents():
        children.setdefault(parent, []).append(pid)
    return children


def parents() -> list[tuple[int, int]]:
    """(pid, parent pid) of every process of the machine."""
    if not os.path.isdir("/proc/self"):
        with os.popen("ps -axo pid=,ppid=") as lines:
            pairs = [line.split() for line in lines]
        return [(int(pid), int(parent)) for pid, parent in pairs]
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                found.append((int(name), int(file.read().rpartition(b")")[2].split()[1])))
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal each process that still exists; ours are unreaped until we reap them, so no pid can have been reused."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def threads(pids: Iterable[int]) -> int:
    """Threads of all these processes, which is what a limit on pids counts."""
    return sum(1 for pid in pids for _ in _tasks(pid))


def _tasks(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from os.listdir(f"/proc/{pid}/task")
