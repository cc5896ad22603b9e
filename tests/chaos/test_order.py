"""Commit first, then the record, then the acknowledgement; and what git and the driver must sync before, they do."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from population import repository
from population.candidate import candidate_id
from population.replay import State
from population.repository import Repository
from tests.chaos.world import HookedDisk, World
from vibeserve import wiring
from vibeserve.driver import Driver

SEED = 11
FEWEST_STATES = 300
RESUMED_STATES = 12


@dataclass
class Moment:
    """What a power cut may find: names in the repository that are durable or may be, and records that are or may be."""

    durable: frozenset[str]
    pending: tuple[str, ...]
    records: int
    written: int


@dataclass
class Watch:
    """Follows one driver's repository and ledger, operation by operation."""

    world: World
    known: set[str] = field(default_factory=set)
    durable: set[str] = field(default_factory=set)
    records: list[bytes] = field(default_factory=list)
    synced: int = 0
    moments: list[Moment] = field(default_factory=list)
    inodes: set[int] = field(default_factory=set)
    folders: set[Path] = field(default_factory=set)
    home: Path | None = None
    """The repository, once the run is prepared."""
    unsynced: list[Path] | None = None
    """Files and folders of the prepared run that were not synced when its ledger began."""

    def before(self, operation: str, subject: Path | int | bytes) -> None:
        if operation == "create" and self.unsynced is None:
            assert isinstance(subject, Path)
            run = subject.parent.parent
            paths = [p for p in run.rglob("*") if not p.is_symlink() and p.name != "ledger" and "ledger" not in p.parts]
            files = [p for p in paths if p.is_file() and p.stat().st_ino not in self.inodes]
            self.unsynced = files + [p for p in (run, run.parent, *paths) if p.is_dir() and p not in self.folders]
            self.home = run / "population.git"
            self.known = self.durable = set(self._names())
        self._look()
        if operation == "write" and isinstance(subject, bytes):
            self.records.append(subject)
            self._look()

    def after(self, operation: str, subject: Path | int | bytes) -> None:
        if operation == "sync" and isinstance(subject, int):
            self.inodes.add(os.fstat(subject).st_ino)
            self.synced = len(self.records)
        elif operation == "sync_folder" and isinstance(subject, Path):
            self.folders.add(subject)
            if self.home is not None and subject.is_relative_to(self.home):
                place = str(subject.relative_to(self.home))
                self.durable = self.durable | {name for name in self.known if str(Path(name).parent) == place}
        self._look()

    def _names(self) -> list[str]:
        home = self.home
        if home is None:
            return []
        found = itertools.chain((home / "objects").glob("??"), (home / "objects").glob("??/*"), home.glob("refs/*/*"))
        return [str(path.relative_to(home)) for path in found if not path.name.startswith("tmp_")]

    def _look(self) -> None:
        if self.unsynced is not None:
            self.known = set(self._names())
            pending = tuple(sorted(self.known - self.durable))
            self.moments.append(Moment(frozenset(self.durable), pending, self.synced, len(self.records)))


class NamesNeverSynced(HookedDisk):
    def sync_folder(self, path: Path) -> None:
        pass


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    watch = Watch(World(folder=tmp_path_factory.mktemp("watched"), seed=SEED))
    watch.world.drive(HookedDisk(watch.before, watch.after))
    return watch


def made(records: list[bytes]) -> dict[str, str]:
    """Candidate → commit of the records."""
    events = [json.loads(record)["event"] for record in records]
    return {candidate_id(e["number"]): e["commit"] for e in events if e["kind"] == "mutation_done"}


def closures(run_dir: Path, commits: dict[str, str]) -> dict[str, frozenset[str]]:
    """Candidate → names of the files below the repository that its commit and its ref consist of."""
    home = run_dir / "population.git"
    found = {}
    for candidate, commit in commits.items():
        listed = repository._git(home, "rev-list", "--objects", commit).stdout.decode("ascii").splitlines()
        objects = [line.split()[0] for line in listed]
        folders = {f"objects/{sha[:2]}" for sha in objects}
        found[candidate] = frozenset(
            {f"objects/{sha[:2]}/{sha[2:]}" for sha in objects} | folders | {f"refs/candidates/{candidate}"}
        )
    return found


def visible(names: frozenset[str]) -> frozenset[str]:
    """Without what is in a folder that is not there."""
    lost = {name for name in names if name.startswith("objects/") and name.count("/") == 2}
    return names - {name for name in lost if name.rpartition("/")[0] not in names}


def states(watch: Watch) -> dict[tuple[frozenset[str], int], None]:
    """Every repository and ledger that a power cut can leave; of many pending names, a sample of the subsets."""
    rng, found = random.Random(SEED), dict[tuple[frozenset[str], int], None]()
    for moment in watch.moments:
        count = len(moment.pending)
        masks = range(1 << count) if count <= 10 else [rng.getrandbits(count) for _ in range(1024)]
        for mask in masks:
            names = moment.durable | {name for bit, name in enumerate(moment.pending) if mask >> bit & 1}
            for records in {moment.records, moment.written}:
                found[visible(names), records] = None
    return found


def violations(watch: Watch) -> list[str]:
    """States in which a record stands without the whole of its commit."""
    assert watch.world.run_dir is not None
    needed = closures(watch.world.run_dir, made(watch.records))
    wrong = []
    for names, records in states(watch):
        wrong += [c for c in made(watch.records[:records]) if not needed[c] <= names]
    return wrong


def test_whatever_a_power_cut_leaves_every_record_has_its_commit(watched: Watch) -> None:
    assert len(states(watched)) >= FEWEST_STATES
    assert not violations(watched)


def test_a_driver_that_did_not_sync_names_would_be_caught(tmp_path: Path) -> None:
    watch = Watch(World(folder=tmp_path, seed=SEED, children=3))
    watch.world.drive(NamesNeverSynced(watch.before, watch.after))
    assert violations(watch)


def test_from_what_a_power_cut_leaves_the_run_goes_on(watched: Watch, tmp_path: Path) -> None:
    assert watched.world.run_dir is not None
    found = list(states(watched))
    for number, (names, records) in enumerate(random.Random(SEED).sample(found, RESUMED_STATES)):
        world = World(folder=tmp_path / str(number), seed=SEED)
        run_dir = world.folder / "runs" / watched.world.run_dir.name
        shutil.copytree(watched.world.run_dir, run_dir, ignore=shutil.ignore_patterns("ledger"))
        for path in watch_names(run_dir / "population.git"):
            if str(path.relative_to(run_dir / "population.git")) not in names and path.exists():
                path.unlink() if path.is_file() else shutil.rmtree(path)
        (run_dir / "ledger").mkdir()
        (run_dir / "ledger" / "000001.jsonl").write_bytes(b"".join(watched.records[:records]))
        world.drive()
        assert world.population() == watched.world.population()


def watch_names(home: Path) -> list[Path]:
    return [*(home / "objects").glob("??"), *(home / "objects").glob("??/*"), *home.glob("refs/*/*")]


def test_everything_that_a_run_is_prepared_with_is_synced_before_its_ledger_begins(watched: Watch) -> None:
    assert watched.unsynced == []


def test_a_record_follows_its_commit_and_the_state_follows_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps for each mutation: the ref is set, the record is written and synced, the state changes."""
    world, drivers, order = World(folder=tmp_path, seed=SEED, children=4), list[State](), list[tuple[str, ...]]()

    def build(rules, records, *rest):  # type: ignore[no-untyped-def]
        drivers.append(records.state)
        return Driver(rules, records, *rest)

    def look(operation: str, subject: Path | int | bytes) -> None:
        if operation == "write" and isinstance(subject, bytes):
            event = json.loads(subject)["event"]
            if event["kind"] == "mutation_done" and event["number"]:
                repository = Repository.open(world.run_dir / "population.git")  # type: ignore[operator]
                assert repository.ref(candidate_id(event["number"])) == event["commit"]
                assert repository.has(event["commit"])
                order.append(("written", event["commit"]))
        elif order and order[-1][0] == "written" and operation in ("sync", "touch"):
            assert order[-1][1] not in drivers[0].commits.values(), "the state is ahead of the ledger"
            if operation == "sync":
                order.append(("synced", order[-1][1]))
        elif order and order[-1][0] == "synced" and operation == "write":
            assert order[-1][1] in drivers[0].commits.values()

    monkeypatch.setattr(wiring, "Driver", build)
    world.drive(HookedDisk(after=look))
    assert [step for step, _ in order] == ["written", "synced"] * (len(order) // 2) and order


def test_git_syncs_every_object_and_every_ref(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As git itself counts it: one flush for each file that it made."""
    git, tools, trace = shutil.which("git"), tmp_path / "tools", tmp_path / "trace"
    tools.mkdir()
    (tools / "git").write_text(f'#!/bin/sh\nGIT_TRACE2_EVENT={trace} exec {git} "$@"\n')
    (tools / "git").chmod(0o755)
    hub = Repository.create(tmp_path / "hub.git")
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    repository._executable.cache_clear()
    try:
        commit = hub.commit_tree({"a/b": b"1", "c": b"2"}, parents=(), message="m", number=1)
        assert flushes(trace) == 5  # two blobs, two trees, the commit
        trace.unlink()
        hub.set_ref("c000001", commit.sha)
        assert flushes(trace) == 1
    finally:
        repository._executable.cache_clear()


def flushes(trace: Path) -> int:
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    return sum(int(e["value"]) for e in events if e.get("category") == "fsync" and "hardware" in e["key"])


def test_locks_and_refs_that_a_killed_git_or_a_zombie_left_are_put_right(tmp_path: Path) -> None:
    hub = Repository.create(tmp_path / "hub.git")
    ours = hub.commit_tree({"a": b"1"}, parents=(), message="ours", number=1).sha
    theirs = hub.commit_tree({"a": b"2"}, parents=(), message="a zombie's", number=1).sha
    hub.set_ref("c000001", theirs)
    for lock in ("refs/candidates/c000001.lock", "packed-refs.lock"):
        (tmp_path / "hub.git" / lock).touch()
    hub.recover({"c000001": ours, "c000002": ours})
    assert hub.ref("c000001") == hub.ref("c000002") == ours
    assert not list((tmp_path / "hub.git").rglob("*.lock"))
    hub.recover({"c000001": ours, "c000002": ours})
    with pytest.raises(repository.RepositoryError, match="expected commit 0000"):
        hub.recover({"c000003": "0" * 40})
