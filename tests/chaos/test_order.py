"""Commit first, then the record, then the acknowledgement; and what the driver must sync before, it does."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from population.candidate import candidate_id
from population.disk import Disk
from population.errors import RepositoryError
from population.git import run_git
from population.packs import Pack
from population.replay import State
from population.repository import Repository
from tests.chaos.world import HookedDisk, World, are_records
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
    """Made, or removed, since their folder was synced: each may be there or not."""
    records: int
    written: int


@dataclass
class Watch:
    """Follows one driver's repository and ledger, operation by operation."""

    world: World
    durable: set[str] = field(default_factory=set)
    pending: set[str] = field(default_factory=set)
    records: list[bytes] = field(default_factory=list)
    synced: int = 0
    moments: list[Moment] = field(default_factory=list)
    inodes: set[int] = field(default_factory=set)
    folders: set[Path] = field(default_factory=set)
    home: Path | None = None
    """The repository, once the run is prepared."""
    unsynced: list[Path] | None = None
    """Files and folders of the prepared run that were not synced when its ledger began."""
    named_unsynced: list[Path] = field(default_factory=list)
    """Files of the repository that got their names before their bytes were synced."""
    contents: dict[str, bytes] = field(default_factory=dict)
    """Every file that the repository ever had, by name, and as it was when it got that name."""

    def before(self, operation: str, subject: Path | int | bytes) -> None:
        if operation == "create" and self.unsynced is None:
            assert isinstance(subject, Path)
            run = subject.parent.parent
            paths = [p for p in run.rglob("*") if not p.is_symlink() and p.name != "ledger" and "ledger" not in p.parts]
            files = [p for p in paths if p.is_file() and p.stat().st_ino not in self.inodes]
            self.unsynced = files + [p for p in (run, run.parent, *paths) if p.is_dir() and p not in self.folders]
            self.home = run / "population.git"
            self.durable = self._names()
        if operation == "rename" and isinstance(subject, Path) and subject.stat().st_ino not in self.inodes:
            self.named_unsynced.append(subject)
        self._look()
        if operation == "write" and isinstance(subject, bytes) and are_records(subject):
            self.records += subject.splitlines(keepends=True)
            self._look()

    def after(self, operation: str, subject: Path | int | bytes) -> None:
        if operation == "sync" and isinstance(subject, int):
            self.inodes.add(os.fstat(subject).st_ino)
            if Path(os.readlink(f"/proc/self/fd/{subject}")).suffix == ".jsonl":
                self.synced = len(self.records)
        elif operation == "rename" and isinstance(subject, Path) and self.home is not None:
            self.inodes.discard(subject.stat().st_ino)  # the number may come again
            self.contents[str(subject.relative_to(self.home))] = subject.read_bytes()
        elif operation == "sync_folder" and isinstance(subject, Path):
            self.folders.add(subject)
            if self.home is not None and subject.is_relative_to(self.home):
                place = str(subject.relative_to(self.home))
                inside = {name for name in self.durable | self.pending if str(Path(name).parent) == place}
                self.durable = (self.durable - inside) | (inside & self._names())
                self.pending -= inside
        self._look()

    def _names(self) -> set[str]:
        found = {str(path.relative_to(self.home)): path for path in repository_files(self.home)} if self.home else {}
        self.contents |= {name: path.read_bytes() for name, path in found.items() if name not in self.contents}
        return set(found)

    def _look(self) -> None:
        if self.unsynced is not None:
            self.pending |= self._names() ^ self.durable
            moment = Moment(frozenset(self.durable - self.pending), tuple(sorted(self.pending)), self.synced, 0)
            moment.written = len(self.records)
            self.moments.append(moment)


def repository_files(home: Path) -> list[Path]:
    """Packs, their indexes and refs."""
    packs = [path for path in (home / "objects" / "pack").iterdir() if path.suffix in (".pack", ".idx")]
    return [*packs, *home.glob("refs/*/*")]


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
    """Candidate → objects that its commit consists of."""
    found = {}
    for candidate, commit in commits.items():
        listed = run_git(run_dir / "population.git", "rev-list", "--objects", commit)[1].decode("ascii").splitlines()
        found[candidate] = frozenset(line.split()[0] for line in listed)
    return found


def objects_in(watch: Watch, folder: Path) -> dict[str, frozenset[str]]:
    """Pack → its objects, of all packs that there ever were."""
    found = {}
    for name, data in watch.contents.items():
        (folder / Path(name).name).write_bytes(data)
    for index in folder.glob("*.idx"):
        entries = Pack(index, Disk()).entries()
        assert entries is not None
        found[f"objects/pack/{index.stem}"] = frozenset(entry.sha.hex() for entry in entries)
    return found


def states(watch: Watch) -> dict[tuple[frozenset[str], int], None]:
    """Every repository and ledger that a power cut can leave; of many pending names, a sample of the subsets.

    Names that are not durable, made or removed, are there or not in any combination.
    """
    rng, found = random.Random(SEED), dict[tuple[frozenset[str], int], None]()
    for moment in watch.moments:
        count = len(moment.pending)
        masks = range(1 << count) if count <= 10 else [rng.getrandbits(count) for _ in range(1024)]
        for mask in masks:
            names = moment.durable | {name for bit, name in enumerate(moment.pending) if mask >> bit & 1}
            for records in range(moment.records, moment.written + 1):
                found[frozenset(names), records] = None
    return found


def violations(watch: Watch, folder: Path) -> list[str]:
    """Candidates whose record stands without the whole of their commit, or without their ref."""
    assert watch.world.run_dir is not None
    folder.mkdir()
    needed, inside = closures(watch.world.run_dir, made(watch.records)), objects_in(watch, folder)
    wrong = []
    for names, records in states(watch):
        whole = [inside[stem] for stem in inside if {f"{stem}.pack", f"{stem}.idx"} <= names]
        there = frozenset().union(*whole)
        recorded = made(watch.records[:records])
        wrong += [c for c in recorded if not needed[c] <= there or f"refs/candidates/{c}" not in names]
    return wrong


def test_whatever_a_power_cut_leaves_every_record_has_its_commit(watched: Watch, tmp_path: Path) -> None:
    assert len(states(watched)) >= FEWEST_STATES
    assert not violations(watched, tmp_path / "packs")


def test_every_file_of_the_repository_is_synced_before_it_gets_its_name(watched: Watch) -> None:
    assert watched.named_unsynced == []
    assert any(name.startswith("refs/candidates/c000003") for name in watched.contents)


def test_a_driver_that_did_not_sync_names_would_be_caught(tmp_path: Path) -> None:
    watch = Watch(World(folder=tmp_path, seed=SEED, children=3))
    watch.world.drive(NamesNeverSynced(watch.before, watch.after))
    assert violations(watch, tmp_path / "packs")


class BytesNeverSynced(HookedDisk):
    def sync_all(self, fds: Sequence[int]) -> None:
        pass


def test_a_driver_that_did_not_sync_bytes_would_be_caught(tmp_path: Path) -> None:
    watch = Watch(World(folder=tmp_path, seed=SEED, children=3))
    watch.world.drive(BytesNeverSynced(watch.before, watch.after))
    assert watch.named_unsynced


def test_from_what_a_power_cut_leaves_the_run_goes_on(watched: Watch, tmp_path: Path) -> None:
    assert watched.world.run_dir is not None
    found = list(states(watched))
    for number, (names, records) in enumerate(random.Random(SEED).sample(found, RESUMED_STATES)):
        world = World(folder=tmp_path / str(number), seed=SEED)
        run_dir = world.folder / "runs" / watched.world.run_dir.name
        shutil.copytree(watched.world.run_dir, run_dir, ignore=shutil.ignore_patterns("ledger"))
        home = run_dir / "population.git"
        for path in repository_files(home):
            path.unlink()
        for name in names:
            (home / name).write_bytes(watched.contents[name])
        (run_dir / "ledger").mkdir()
        (run_dir / "ledger" / "000001.jsonl").write_bytes(b"".join(watched.records[:records]))
        world.drive()
        assert world.population() == watched.world.population()


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
        if operation == "write" and isinstance(subject, bytes) and are_records(subject):
            event = json.loads(subject.splitlines()[-1])["event"]
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


def test_locks_and_refs_that_a_killed_git_or_a_zombie_left_are_put_right(tmp_path: Path) -> None:
    hub = Repository.create(tmp_path / "hub.git")
    ours = hub.commit_tree({"a": b"1"}, parents=(), message="ours", number=1).sha
    theirs = hub.commit_tree({"a": b"2"}, parents=(), message="a zombie's", number=1).sha
    hub.set_ref("c000001", theirs)
    for lock in ("refs/candidates/c000001.lock", "packed-refs.lock"):
        (tmp_path / "hub.git" / lock).touch()
    (tmp_path / "hub.git" / "objects" / "pack" / "tmp_123_abc").write_bytes(b"half a pack")
    hub.recover({"c000001": ours, "c000002": ours})
    assert hub.ref("c000001") == hub.ref("c000002") == ours
    assert not [*(tmp_path / "hub.git").rglob("*.lock"), *(tmp_path / "hub.git").rglob("tmp_*")]
    hub.recover({"c000001": ours, "c000002": ours})
    with pytest.raises(RepositoryError, match="expected commit 0000"):
        hub.recover({"c000003": "0" * 40})
