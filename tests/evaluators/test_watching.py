"""What the watchdog counts where no control group does: memory, disk, and the filter's part."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from evaluators import bpf, seccomp
from evaluators.disk import disk_above
from evaluators.memory import memory_above

MEBIBYTE = 1 << 20


def fill(path: Path, size_bytes: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * size_bytes)
    return path


def test_disk_counts_files_once_links_not_again_and_holes_not_at_all(tmp_path: Path) -> None:
    top = tmp_path / "home"
    first = fill(top / "a", MEBIBYTE)
    (top / "deep").mkdir()
    os.link(first, top / "deep" / "same")
    (top / "link").symlink_to(fill(tmp_path / "elsewhere", 4 * MEBIBYTE))
    with (top / "sparse").open("wb") as sparse:
        sparse.truncate(64 * MEBIBYTE)
    assert disk_above([str(top)], [], MEBIBYTE - 1)
    assert not disk_above([str(top)], [], MEBIBYTE + MEBIBYTE // 2)
    assert not disk_above([str(tmp_path / "missing")], [], 0)


def test_disk_counts_nameless_files_that_are_held_open_and_only_there(tmp_path: Path) -> None:
    top, us = tmp_path / "home", [os.getpid(), os.getpid()]
    path = fill(top / "gone", MEBIBYTE)
    with path.open("rb"), path.open("rb"):
        path.unlink()
        assert disk_above([str(top)], us, MEBIBYTE - 1)
        assert not disk_above([str(top)], us, MEBIBYTE + MEBIBYTE // 2)
        assert not disk_above(["/proc"], us, MEBIBYTE - 1)  # another disk
    assert not disk_above([str(top)], us, MEBIBYTE - 1)


@pytest.mark.parametrize("kind", ["private", "shared", "file"])
def test_memory_counts_pages_and_files_in_memory(kind: str) -> None:
    size, us = 48 * MEBIBYTE, [os.getpid()]
    limit = next(limit for limit in range(0, 64 << 30, 4 * MEBIBYTE) if not memory_above(us, limit))
    if kind == "file":
        descriptor = os.memfd_create("test")
        try:
            os.posix_fallocate(descriptor, 0, size)
            assert memory_above(us, limit)
            assert not memory_above(us, limit + 2 * size)
        finally:
            os.close(descriptor)
        return
    flags = mmap.MAP_ANONYMOUS | (mmap.MAP_PRIVATE if kind == "private" else mmap.MAP_SHARED)
    with mmap.mmap(-1, size, flags=flags) as pages:
        pages.write(b"x" * size)
        assert memory_above(us, limit)
        assert not memory_above(us, limit + 2 * size)


SHARING = """
import mmap, os, sys
sys.path.append(sys.argv[1])
from evaluators.memory import memory_above

size, children = 48 << 20, []
pages = mmap.mmap(-1, size)
pages.write(b"x" * size)
read, write = os.pipe()
for _ in range(4):
    ready, done = os.pipe()
    if (pid := os.fork()) == 0:
        total = sum(pages[at] for at in range(0, size, 4096))  # maps every page here, too
        os.write(done, b"1")
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.read(ready, 1)
    children.append(pid)
print(memory_above(children, size // 2), memory_above(children, 3 * size))
os.close(write)
"""


def test_memory_that_processes_share_counts_once() -> None:
    """In an interpreter of its own: what a large parent shares with its children would count as well."""
    command = [sys.executable, "-I", "-S", "-c", SHARING, str(Path(__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "True False\n"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_keeps_what_nothing_else_keeps(machine: str) -> None:
    """Affinity where no cpuset group pins, segments where no memory group counts; else both are the command's."""

    def refused(**given: bool) -> set[int]:
        code = bpf.calls(seccomp.program(machine, **given))
        return {
            test[3] for test, then in pairwise(code) if test[0] == 0x15 and then == (0x06, 0, 0, 0x50000 | errno.EPERM)
        }

    affinity, segments = ({203}, {29}) if machine == "x86_64" else ({122}, {194})
    assert refused(pinned=True) - refused() == affinity
    assert refused(segments=False) - refused() == segments
    assert refused() <= refused(pinned=True, segments=False)
