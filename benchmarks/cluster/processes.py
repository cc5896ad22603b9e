"""Decides what CPU time a driver, its workers and Ray itself have used: the kernel's count, for a tree of processes.

Wall times on a machine that does something else say little; CPU times are nearly the same.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class CpuTime:
    """CPU seconds so far, user and system."""

    driver_s: float
    workers_s: float
    """Ray's worker processes, actors among them."""
    ray_s: float
    """Raylet, control store and agents."""

    def __sub__(self, other: CpuTime) -> CpuTime:
        return CpuTime(
            driver_s=self.driver_s - other.driver_s,
            workers_s=self.workers_s - other.workers_s,
            ray_s=self.ray_s - other.ray_s,
        )

    def ms_per(self, count: int) -> tuple[float, float, float]:
        """Of each, in ms."""
        return 1000 * self.driver_s / count, 1000 * self.workers_s / count, 1000 * self.ray_s / count


def cpu_time() -> CpuTime:
    """Of this process and all below it that live."""
    parents: dict[int, int] = {}
    used_s: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(folder.name)] = int(fields[1])
            used_s[int(folder.name)] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    me, workers_s, ray_s = os.getpid(), 0.0, 0.0
    for process, spent_s in used_s.items():
        if process != me and _is_below(process, me, parents):
            if _is_worker(process):
                workers_s += spent_s
            else:
                ray_s += spent_s
    return CpuTime(driver_s=used_s[me], workers_s=workers_s, ray_s=ray_s)


def _is_below(process: int, top: int, parents: dict[int, int]) -> bool:
    while process in parents:
        process = parents[process]
        if process == top:
            return True
    return False


def _is_worker(process: int) -> bool:
    try:
        command = (Path("/proc") / str(process) / "cmdline").read_bytes()
    except OSError:
        return False
    return command.startswith(b"ray::") or b"default_worker.py" in command
