"""Decides when a command's control groups go, and what they say about its end.

Standard library only: the supervisor runs it without site-packages, because it outlives the process that made them.
"""

from __future__ import annotations

import contextlib
import os
import time

_REMOVE_TIMEOUT_S = 1.0
_RETRY_S = 0.002


class Groups:
    """Folders below /sys/fs/cgroup that belong to one command alone."""

    def __init__(self, folders: list[str]) -> None:
        self._folders = folders

    def complaints(self) -> list[str]:
        """What the kernel refused or killed because of these groups' limits, in words."""
        found = []
        for folder in self._folders:
            if _counter(folder, "memory.events", "oom_kill") or _counter(folder, "memory.oom_control", "oom_kill"):
                found.append("killed: out of the memory that it may use")
            if _counter(folder, "pids.events", "max"):
                found.append("it reached the number of processes and threads that it may have")
        return found

    def remove(self) -> None:
        """Remove the groups, which must be empty by now; the kernel takes a moment to see that they are."""
        deadline = time.monotonic() + _REMOVE_TIMEOUT_S
        for folder in self._folders:
            while True:
                try:
                    os.rmdir(folder)
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(_RETRY_S)
                else:
                    break


def _counter(folder: str, name: str, key: str) -> int:
    with contextlib.suppress(OSError, ValueError), open(f"{folder}/{name}") as lines:
        for line in lines:
            word, _, number = line.partition(" ")
            if word == key:
                return int(number)
    return 0
