"""Decides whether others computed on the lease's GPUs: what nvidia-smi lists and the server did not start."""

from __future__ import annotations

import subprocess
from collections.abc import Set
from dataclasses import dataclass

from evaluators.machine import Machine

TIMEOUT_S = 30.0
SHARED_DAEMONS = ("nvidia-cuda-mps-server",)
"""They compute on behalf of others, who are listed themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """One line of `nvidia-smi --query-compute-apps`."""

    pid: int
    name: str


def foreign_gpu_processes(gpus: tuple[str, ...], server_root: int, program: str = "nvidia-smi") -> tuple[str, ...]:
    """`name (pid)` of each process on these GPUs that belongs neither to the server nor to us.

    Empty for no GPUs, and where nvidia-smi is missing or tells nothing (in containers without the host's processes).
    """
    if not gpus:
        return ()
    query = [program, "-i", ",".join(gpus), "--query-compute-apps=pid,process_name", "--format=csv,noheader"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    machine = Machine()
    ours = machine.tree(server_root) | machine.own()
    return tuple(f"{p.name} ({p.pid})" for p in foreign(parse(listing), ours, machine.processes.keys()))


def parse(listing: str) -> list[GpuProcess]:
    """The processes of a listing `pid, name` per line; lines that are none (warnings, [N/A]) are left out."""
    found = []
    for line in listing.splitlines():
        pid, comma, name = line.partition(",")
        if comma and pid.strip().isdigit():
            found.append(GpuProcess(pid=int(pid), name=name.strip()))
    return found


def foreign(listed: list[GpuProcess], ours: Set[int], known: Set[int]) -> list[GpuProcess]:
    """Those that are not ours, in order of their pids.

    If none of the listed pids exists here, the listing counts in the host's pid namespace and this is another one: then
    the server itself would look foreign, and nothing can be told.
    """
    if not any(process.pid in known for process in listed):
        return []
    others = {process.pid: process for process in listed if process.pid not in ours}
    return [others[pid] for pid in sorted(others) if not others[pid].name.endswith(SHARED_DAEMONS)]
