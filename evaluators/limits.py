"""Decides how much of a machine one command may use, and which control groups enforce it.

Control groups are used where we may make them, version 2 or 1, below our own group or beside it, so that whatever
limits us limits the command as well. For what they do not cover here, rlimits and the supervisor's watchdog remain,
and `gaps` says what that leaves open.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

Resource = Literal["memory", "pids", "cpuset", "cpu"]
RESOURCES: tuple[Resource, ...] = ("memory", "pids", "cpuset", "cpu")
PIDS = 8192
"""Processes and threads; torch.compile needs thousands."""
MEMORY_SHARE = 0.8
"""Of the machine's memory, what all candidates together may have."""
LEAST_MEMORY_BYTES = 2 << 30
_TEMPORARY_SHARE, _MOST_TEMPORARY_BYTES = 0.25, 16 << 30
_PERIOD_US = 100_000
_PREFIX = "vibeserve-"

_WITHOUT: Mapping[str, str] = {
    "memory": "memory: no writable control group; a watchdog ends a tree some 50 ms after it passed its limit, "
    "temporary folders not counted",
    "pids": "processes: no writable control group; rlimits and a watchdog that counts about every 50 ms",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one command, with everything it starts, may use."""

    memory_bytes: int
    """Its temporary folders included; swap: none."""
    temporary_bytes: int
    """Each of home, /tmp and /dev/shm."""
    pids: int = PIDS
    cpus: tuple[int, ...] = ()
    """Logical CPUs; empty: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """Where groups for a resource can be made on this machine."""

    resource: Resource
    version: int
    parent: Path


def limits_for(cpus: tuple[int, ...], gpus: tuple[str, ...]) -> Limits:
    """A share of the memory as large as the share of the CPUs, or of the GPUs where that is more."""
    usable = len(os.sched_getaffinity(0))
    share = len(cpus) / usable if cpus else 1.0
    installed = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if gpus and installed:
        share = max(share, len(gpus) / installed)
    memory_bytes = max(LEAST_MEMORY_BYTES, int(memory_of_machine_bytes() * MEMORY_SHARE * min(1.0, share)))
    temporary_bytes = min(_MOST_TEMPORARY_BYTES, int(memory_bytes * _TEMPORARY_SHARE))
    return Limits(memory_bytes=memory_bytes, temporary_bytes=temporary_bytes, cpus=cpus)


def limits_of(given: Limits | None, cpus: tuple[int, ...], gpus: tuple[str, ...]) -> Limits:
    """Those that were given, or a share of the machine; the CPUs are the command's own in any case."""
    return limits_for(cpus, gpus) if given is None else replace(given, cpus=cpus)


@cache
def memory_of_machine_bytes() -> int:
    """Installed memory, or less where a control group gives us less; asked once per process."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in ("/sys/fs/cgroup", *(str(each.parent) for each in _candidates() if each.resource == "memory")):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                found.append(int(Path(folder, name).read_text()))
    return min(found)


def gaps(usable: tuple[Controller, ...]) -> tuple[str, ...]:
    """What the limits leave open with these controllers only."""
    have = {each.resource for each in usable}
    return tuple(words for name, words in _WITHOUT.items() if name not in have)


def watched(usable: tuple[Controller, ...], limits: Limits) -> dict[str, int]:
    """The limits that are the watchdog's."""
    have = {each.resource for each in usable}
    wanted = {"memory": ("memory_bytes", limits.memory_bytes), "pids": ("pids", limits.pids)}
    return dict(pair for name, pair in wanted.items() if name not in have)


def pinned_by_affinity(usable: tuple[Controller, ...], limits: Limits) -> bool:
    """Whether only affinity keeps the command on its CPUs, which it must not change then, not even within them."""
    return bool(limits.cpus) and all(each.resource != "cpuset" for each in usable)


@cache
def usable_controllers() -> tuple[Controller, ...]:
    """The controllers with which a group can be made here, tried by making one; once per process."""
    cpu = min(os.sched_getaffinity(0))
    trial = Limits(memory_bytes=1 << 30, temporary_bytes=0, cpus=(cpu,))
    found: dict[str, Controller] = {}
    for candidate in _candidates():
        if candidate.resource in found:
            continue
        _remove_stale(candidate.parent)
        with suppress(OSError):
            groups = make_groups((candidate,), trial)
            entered = _can_enter(groups[0])
            remove(groups)
            if entered:
                found[candidate.resource] = candidate
    if "cpuset" in found:
        found.pop("cpu", None)  # a quota on top of as many CPUs would only throttle
    return tuple(found.values())


def make_groups(controllers: tuple[Controller, ...], limits: Limits) -> tuple[Path, ...]:
    """New groups with these limits, for one command to enter.

    Raises:
        OSError: a group cannot be made or refuses a limit.
    """
    name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    made: list[Path] = []
    try:
        for controller in controllers:
            folder = controller.parent / name
            if folder not in made:
                folder.mkdir()
                made.append(folder)
            for file, value in _settings(controller, limits):
                (folder / file).write_text(value)
    except OSError:
        remove(tuple(made))
        raise
    return tuple(made)


def remove(folders: tuple[Path, ...]) -> None:
    """Remove groups that nobody is in; others stay."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _can_enter(folder: Path) -> bool:
    """Making a group does not imply that a process may be moved from ours into it."""
    enter = subprocess.run(["/bin/sh", "-c", 'echo 0 > "$0/cgroup.procs"', str(folder)], stderr=subprocess.DEVNULL)
    return enter.returncode == 0


def _settings(controller: Controller, limits: Limits) -> Iterator[tuple[str, str]]:
    cpus, old = limits.cpus, controller.version == 1
    match controller.resource:
        case "memory":
            yield "memory.limit_in_bytes" if old else "memory.max", str(limits.memory_bytes)
            swap = controller.parent / "memory.memsw.limit_in_bytes"
            if not old:
                yield "memory.swap.max", "0"
                yield "memory.oom.group", "1"
            elif swap.exists():
                yield swap.name, str(limits.memory_bytes)
        case "pids":
            yield "pids.max", str(limits.pids)
        case "cpuset":
            if old:
                yield "cpuset.mems", (controller.parent / "cpuset.mems").read_text().strip()
            wanted = ",".join(map(str, cpus))
            yield "cpuset.cpus", wanted or (controller.parent / _effective(old)).read_text().strip()
        case "cpu" if old:
            yield "cpu.cfs_period_us", str(_PERIOD_US)
            yield "cpu.cfs_quota_us", str(len(cpus) * _PERIOD_US if cpus else -1)
        case "cpu":
            yield "cpu.max", f"{len(cpus) * _PERIOD_US if cpus else 'max'} {_PERIOD_US}"


def _effective(old: bool) -> str:
    return "cpuset.cpus" if old else "cpuset.cpus.effective"


def _candidates() -> list[Controller]:
    """Where groups might be made: version 2 first, below our own group, then beside it."""
    found: list[Controller] = []
    for version, names, folder in _own_groups():
        if version == 1:
            found += [Controller(resource=r, version=1, parent=folder) for r in RESOURCES if r in names]
            continue
        for parent in (folder, folder.parent):
            with suppress(OSError):
                granted = (parent / "cgroup.subtree_control").read_text().split()
                found += [Controller(resource=r, version=2, parent=parent) for r in RESOURCES if r in granted]
    return sorted(found, key=lambda each: -each.version)


def _own_groups() -> Iterator[tuple[int, set[str], Path]]:
    """(version, controllers, folder) of each hierarchy that we are in and that is mounted."""
    mounted: list[tuple[int, set[str], str, str]] = []
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            head, _, tail = line.partition(" - ")
            root, point = head.split()[3:5]
            kind, _, options = tail.split(" ", 2)
            if kind in ("cgroup", "cgroup2"):
                mounted.append((2 if kind == "cgroup2" else 1, set(options.split(",")), root, point))
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            for version, options_of, root, point in mounted:
                if (version == 2 and names == "") or (version == 1 and names and set(names.split(",")) <= options_of):
                    inside = path.removeprefix(root) if root != "/" else path
                    yield version, set(names.split(",")), Path(point, inside.lstrip("/"))


def _remove_stale(parent: Path) -> None:
    """Groups whose makers were killed together with their supervisors."""
    with suppress(OSError):
        for folder in parent.glob(f"{_PREFIX}*"):
            maker = folder.name.removeprefix(_PREFIX).partition("-")[0]
            if maker.isdigit() and not Path("/proc", maker).exists():
                remove((folder,))
