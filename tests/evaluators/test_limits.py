"""Limits: how large they are, which control groups keep them, and what is said where none does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evaluators.groups import Groups
from evaluators.limits import (
    LEAST_MEMORY_BYTES,
    RESOURCES,
    Controller,
    Limits,
    gaps,
    limits_for,
    make_groups,
    memory_of_machine_bytes,
    remove,
    usable_controllers,
    watched,
)

LIMITS = Limits(memory_bytes=1 << 30, temporary_bytes=1 << 20, pids=100, cpus=(2, 3))


def controllers(folder: Path, version: int, *names: str) -> tuple[Controller, ...]:
    return tuple(Controller(resource=name, version=version, parent=folder) for name in names)  # type: ignore[arg-type]


def settings(folders: tuple[Path, ...]) -> dict[str, str]:
    return {path.name: path.read_text() for folder in folders for path in folder.iterdir()}


def test_a_share_of_the_cpus_is_a_share_of_the_memory() -> None:
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    whole, one = limits_for(cpus, ()), limits_for(cpus[:1], ())
    assert LEAST_MEMORY_BYTES <= one.memory_bytes <= whole.memory_bytes < memory_of_machine_bytes()
    assert one.memory_bytes == max(LEAST_MEMORY_BYTES, int(memory_of_machine_bytes() * 0.8 / len(cpus)))
    assert one.temporary_bytes <= one.memory_bytes / 4
    assert one.cpus == cpus[:1]


def test_version_2_is_one_folder_with_every_limit(tmp_path: Path) -> None:
    made = make_groups(controllers(tmp_path, 2, "memory", "pids", "cpuset"), LIMITS)
    assert len(made) == 1
    assert settings(made) == {
        "memory.max": str(1 << 30), "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "100",
        "cpuset.cpus": "2,3",
    }  # fmt: skip


def test_version_1_has_a_folder_per_hierarchy(tmp_path: Path) -> None:
    found = []
    for name in ("memory", "pids", "cpuset", "cpu"):
        (tmp_path / name).mkdir()
        found += controllers(tmp_path / name, 1, name)
    (tmp_path / "cpuset" / "cpuset.mems").write_text("0-1\n")
    (tmp_path / "memory" / "memory.memsw.limit_in_bytes").write_text("")
    made = make_groups(tuple(found), LIMITS)
    assert len(made) == 4
    assert settings(made) == {
        "memory.limit_in_bytes": str(1 << 30), "memory.memsw.limit_in_bytes": str(1 << 30), "pids.max": "100",
        "cpuset.mems": "0-1", "cpuset.cpus": "2,3", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "200000",
    }  # fmt: skip


def test_a_refused_limit_leaves_no_group_behind(tmp_path: Path) -> None:
    second = tmp_path / "missing"
    with pytest.raises(OSError, match="missing"):
        make_groups((*controllers(tmp_path, 2), *controllers(second, 1, "cpuset")), LIMITS)
    assert list(tmp_path.iterdir()) == []


def test_what_groups_do_not_keep_the_watchdog_does_and_gaps_say_it(tmp_path: Path) -> None:
    everything = controllers(tmp_path, 2, *RESOURCES)
    assert gaps(everything) == ()
    assert watched(everything, LIMITS) == {}
    without_memory = controllers(tmp_path, 2, "pids", "cpuset")
    assert [gap.partition(":")[0] for gap in gaps(without_memory)] == ["memory"]
    assert watched(without_memory, LIMITS) == {"memory_bytes": 1 << 30}
    assert watched((), LIMITS) == {"memory_bytes": 1 << 30, "pids": 100}
    assert {"memory", "processes"} <= {gap.partition(":")[0] for gap in gaps(())}


def test_real_groups_can_be_made_and_leave_nothing() -> None:
    usable = usable_controllers()
    limits = Limits(memory_bytes=1 << 30, temporary_bytes=1 << 20, cpus=(min(os.sched_getaffinity(0)),))
    made = make_groups(usable, limits)
    assert all(folder.is_dir() for folder in made)
    assert Groups([str(folder) for folder in made]).complaints() == []
    remove(made)
    assert not [folder for folder in made if folder.exists()]


def test_complaints_are_read_from_the_groups(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    (tmp_path / "pids.events").write_text("max 3\n")
    assert [words.partition(":")[0] for words in Groups([str(tmp_path)]).complaints()] == [
        "killed", "it reached the number of processes and threads that it may have",
    ]  # fmt: skip
    (tmp_path / "memory.events").write_text("oom_kill 0\n")
    (tmp_path / "pids.events").write_text("max 0\n")
    assert Groups([str(tmp_path)]).complaints() == []
