"""The disk is full or broken at every single operation of a driver: a clear error, nothing lost, resume goes on."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from population import git
from population.errors import InfrastructureError, VibeServeError
from population.ledger import read_events
from tests.chaos.world import HookedDisk, World, are_records

SEED, CHILDREN = 5, 2


@dataclass
class FailingDisk(HookedDisk):
    """Fails its n-th operation (0: none), or takes only a part of it, and counts what was acknowledged before."""

    at: int = 0
    code: int = errno.ENOSPC
    short: bool = False
    operations: list[str] = field(default_factory=list)
    failed: str | None = None
    broken: set[int] = field(default_factory=set)
    """Files whose write or sync failed. Neither may be tried again: the system may report success for lost data."""
    told: list[str] = field(default_factory=list)
    written: bytes = b""

    def __post_init__(self) -> None:
        self.before, self.after = self._before, self._after

    def _before(self, operation: str, subject: Path | int | bytes) -> None:
        self.operations.append(operation)
        if len(self.operations) == self.at and not self.short:
            self.failed = operation
            raise OSError(self.code, os.strerror(self.code))

    def _after(self, operation: str, subject: Path | int | bytes) -> None:
        if operation == "write" and isinstance(subject, bytes) and are_records(subject):
            self.written = subject
        elif operation == "touch" and self.written:
            self.told += [json.loads(line)["hash"] for line in self.written.splitlines()]
            self.written = b""

    def write(self, fd: int, data: bytes) -> int:
        with self._whole(os.fstat(fd).st_ino):
            if len(self.operations) + 1 == self.at and self.short:
                self.operations.append("write")
                self.failed = "write"
                self.broken.add(os.fstat(fd).st_ino)
                return os.write(fd, data[: len(data) // 2])
            return super().write(fd, data)

    def sync(self, fd: int) -> None:
        with self._whole(os.fstat(fd).st_ino):
            super().sync(fd)

    def rewrite(self, path: Path, offset: int, data: bytes) -> None:
        with self._whole(path.stat().st_ino):
            super().rewrite(path, offset, data)

    def remove(self, path: Path) -> None:
        if path.exists():
            self.broken.discard(path.stat().st_ino)  # a file made later may get the number again
        super().remove(path)

    @contextmanager
    def _whole(self, inode: int) -> Iterator[None]:
        assert inode not in self.broken, "a write or sync was tried again after it had failed"
        try:
            yield
        except OSError:
            self.broken.add(inode)
            raise


def world(folder: Path) -> World:
    return World(folder=folder, seed=SEED, children=CHILDREN, finals=0)


def copied(begun: Path, folder: Path) -> World:
    shutil.copytree(begun, folder)
    return world(folder)


def hashes(run_dir: Path) -> list[str]:
    lines = [line for s in sorted((run_dir / "ledger").glob("*.jsonl")) for line in s.read_bytes().splitlines()]
    return [json.loads(line)["hash"] for line in lines if line.endswith(b"}}")]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world whose run is prepared and has its first record, and nothing else."""
    folder = tmp_path_factory.mktemp("begun") / "world"
    healthy = FailingDisk()
    world(tmp_path_factory.mktemp("counted")).drive(healthy)
    first = healthy.operations.index("write") + 1
    with pytest.raises(InfrastructureError):
        world(folder).drive(FailingDisk(at=healthy.operations.index("write", first) + 1))
    return folder


@pytest.fixture(scope="module")
def calm(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """The population of the undisturbed run, and what its driver does on the disk from the first record on."""
    undisturbed, disk = copied(begun, tmp_path_factory.mktemp("calm") / "world"), FailingDisk()
    undisturbed.drive(disk)
    return undisturbed.population(), disk.operations


def cases(operations: list[str]) -> Iterator[FailingDisk]:
    """Every operation fails once, with the one error or the other; every write is also cut short."""
    for at, operation in enumerate(operations, start=1):
        yield FailingDisk(at=at, code=errno.EIO if at % 2 else errno.ENOSPC)
        if operation == "write":
            yield FailingDisk(at=at, short=True)


def test_whichever_operation_fails_the_error_is_clear_and_nothing_is_lost(
    begun: Path, calm: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    population, operations = calm
    assert {"create", "write", "sync", "sync_folder", "rename", "rewrite", "touch"} == set(operations)
    for number, disk in enumerate(cases(operations)):
        again = copied(begun, tmp_path / str(number))
        assert again.run_dir is not None
        before = list(read_events(again.run_dir / "ledger"))
        with pytest.raises(InfrastructureError, match=os.strerror(disk.code)) as caught:
            again.drive(disk)
        assert disk.failed, number
        assert "free some space" in str(caught.value) or disk.code == errno.EIO
        assert [h for h in hashes(again.run_dir) if h in disk.told] == disk.told, number
        again.drive()
        assert [h for h in hashes(again.run_dir) if h in disk.told] == disk.told, number
        assert list(read_events(again.run_dir / "ledger"))[: len(before)] == before
        assert again.population() == population, f"{disk.failed} failed, operation {disk.at}"
        shutil.rmtree(again.folder)


def test_a_disk_that_is_full_while_a_run_is_prepared_is_said_so_and_leaves_no_run(tmp_path: Path) -> None:
    counted = FailingDisk()
    world(tmp_path / "counted").drive(counted)
    prepared = counted.operations.index("create")
    for at in (1, 2, prepared // 2, prepared):
        fresh = world(tmp_path / str(at))
        with pytest.raises(VibeServeError, match="No space left on device"):
            fresh.drive(FailingDisk(at=at))
        assert fresh.run_dir is None
        assert fresh.drive() == "budget: children"


def error_of(driven: World) -> str | None:
    """Drives a world, whose driver may give up."""
    try:
        driven.drive()
    except VibeServeError as error:
        return str(error)
    return None


GIT = """#!/bin/sh
echo x >> {count}
if [ $(wc -l < {count}) -eq {at} ]; then
  {then}
  echo 'fatal: write error: No space left on device' >&2
  exit 128
fi
exec {git} "$@"
"""


@pytest.mark.parametrize("then", ["cat > {count}.input", '{git} "$@"'], ids=["undone", "done"])
def test_a_git_that_fails_loses_nothing(
    begun: Path, calm: tuple[list[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    program = shutil.which("git")
    assert program is not None
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    git.executable.cache_clear()
    count, at, calls = tmp_path / "count", 0, 1
    try:
        while at < calls:
            again = copied(begun, tmp_path / str(at))
            at += 1
            words = {"count": str(count), "git": program, "at": str(at)}
            (tools / "git").write_text(GIT.format(then=then.format(**words), **words))
            (tools / "git").chmod(0o755)
            count.write_text("")
            error = error_of(again)
            if error is not None:
                assert "No space left on device" in error
                again.drive()
            calls = len(count.read_text().splitlines())
            assert again.population() == calm[0], f"call {at} of git"
    finally:
        git.executable.cache_clear()
