"""Armed trees: nothing in them is executed or obeyed by any git operation of the driver, committed or smuggled in."""

from __future__ import annotations

import os
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from population.errors import RepositoryError
from population.git_objects import Entry, GitObject, commit_object, tree_objects
from population.packs import make_pack, packed
from population.repository import Commit, Repository, TreeRefused
from tests.population.armed_trees import ARMED, HARMLESS, KINDS, REFUSED, filters, fsmonitor, hooks

Arm = Callable[[Path, Path], None]
SERVER = {"server.py": b"print(1)\n", "engine.toml": b"x = 1\n"}


@dataclass(frozen=True)
class Trap:
    """A folder to arm, a program that leaves a witness, and what the user's own git would obey."""

    folder: Path
    program: Path
    witness: Path

    def sprung(self) -> bool:
        return self.witness.exists()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path / "population.git", durable=False)


@pytest.fixture
def seed(repository: Repository) -> Commit:
    return repository.commit_tree(SERVER, parents=(), message="seed", number=0)


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trap]:
    """The user's configuration, environment and working directory are armed as well."""
    witness, program, home = tmp_path / "witness", tmp_path / "program", tmp_path / "home"
    program.write_text(f"#!/bin/sh\ntouch {witness}\n")
    program.chmod(0o755)
    home.mkdir()
    (home / ".gitconfig").write_text(
        f"[core]\n\tfsmonitor = {program}\n\tpager = {program}\n[diff]\n\texternal = {program}\n[alias]\n"
        f'\tlog = !{program}\n[filter "evil"]\n\tsmudge = {program}\n\tclean = {program}\n'
        f'[diff "evil"]\n\ttextconv = {program}\n[merge "evil"]\n\tdriver = {program}\n'
        f"[uploadpack]\n\tpackObjectsHook = {program}\n"
    )
    monkeypatch.setenv("HOME", str(home))
    for name in ("GIT_EXTERNAL_DIFF", "GIT_PAGER", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_EDITOR"):
        monkeypatch.setenv(name, str(program))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(program))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    folder = tmp_path / "armed"
    folder.mkdir()
    (folder / "server.py").write_text("print(3)\n")
    monkeypatch.chdir(folder)
    yield Trap(folder, program, witness)
    assert not witness.exists(), "something in the tree was executed"


def test_there_are_at_least_forty_armed_trees() -> None:
    assert len({arm.__name__ for arm in ARMED}) == len(ARMED) >= 40
    assert set(ARMED) == set(REFUSED) | set(HARMLESS)


@pytest.mark.parametrize("arm", [fsmonitor, hooks, filters], ids=lambda arm: arm.__name__)
def test_the_traps_are_live(trap: Trap, monkeypatch: pytest.MonkeyPatch, arm: Arm) -> None:
    """Otherwise the tests below would prove nothing: git as everybody uses it springs them."""
    arm(trap.folder, trap.program)
    for name in ("GIT_DIR", "GIT_CONFIG_COUNT"):
        monkeypatch.delenv(name)
    if arm is filters:
        subprocess.run(["git", "init", "-q"], check=True)
    else:
        (trap.folder.parent / "home" / ".gitconfig").unlink()
    for command in (["add", "server.py"], ["status", "--short"]):
        subprocess.run(["git", *command], capture_output=True, check=False)
    assert trap.sprung()
    trap.witness.unlink()


@pytest.mark.parametrize("arm", REFUSED, ids=lambda arm: arm.__name__)
def test_armed_trees_are_refused(repository: Repository, trap: Trap, arm: Arm) -> None:
    arm(trap.folder, trap.program)
    with pytest.raises(TreeRefused, match="the tree was refused: ") as refusal:
        repository.commit_tree(trap.folder, parents=(), message="m", number=1)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("arm", HARMLESS, ids=lambda arm: arm.__name__)
def test_armed_trees_that_are_only_files_stay_only_files(
    repository: Repository, trap: Trap, tmp_path: Path, arm: Arm
) -> None:
    arm(trap.folder, trap.program)
    before = {str(p.relative_to(trap.folder)): p.read_bytes() for p in trap.folder.rglob("*") if p.is_file()}
    commit = repository.commit_tree(trap.folder, parents=(), message="m", number=1)
    repository.export(commit.sha, tmp_path / "out")
    out = tmp_path / "out"
    assert {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


Operation = Callable[[Repository, str, str, Path], object]
OPERATIONS: dict[str, Operation] = {
    "has": lambda r, sha, seed, tmp: r.has(sha),
    "tree_of": lambda r, sha, seed, tmp: r.tree_of(sha),
    "export": lambda r, sha, seed, tmp: r.export(sha, tmp / "export"),
    "read_files": lambda r, sha, seed, tmp: r.read_files(sha),
    "merge": lambda r, sha, seed, tmp: r.merge(sha, seed, message="merge", number=8),
    "merge as theirs": lambda r, sha, seed, tmp: r.merge(seed, sha, message="merge", number=9),
    "diff": lambda r, sha, seed, tmp: r.diff(seed, sha),
    "diff back": lambda r, sha, seed, tmp: r.diff(sha, seed, paths=("server.py",)),
    "log": lambda r, sha, seed, tmp: r.log(sha),
    "delta": lambda r, sha, seed, tmp: r.delta(sha),
    "absorb": lambda r, sha, seed, tmp: [
        Repository.cache(tmp / "cache.git").absorb(r.delta(commit)) for commit in (seed, sha)
    ],
    "set_ref": lambda r, sha, seed, tmp: r.set_ref("c000001", sha),
    "set_baseline": lambda r, sha, seed, tmp: r.set_baseline("b", sha),
    "recover": lambda r, sha, seed, tmp: r.recover({"c000002": sha}),
    "commit on top": lambda r, sha, seed, tmp: r.commit_tree(SERVER, parents=(sha,), message="m", number=5),
}
CHECKED = ("export", "read_files")
"""What hands out a commit's files checks all of them first."""


@pytest.mark.parametrize("arm", ARMED, ids=lambda arm: arm.__name__)
def test_no_operation_executes_anything_of_an_armed_tree(
    repository: Repository, seed: Commit, trap: Trap, tmp_path: Path, arm: Arm
) -> None:
    """The worst case: the tree is in the driver's repository already, as if a worker had been taken over."""
    arm(trap.folder, trap.program)
    sha = smuggle(tmp_path / "population.git", seed.sha, trap.folder)
    for name, operation in OPERATIONS.items():
        try:
            operation(repository, sha, seed.sha, tmp_path)
            refused = False
        except RepositoryError:
            refused = True
        assert not trap.sprung(), name
        if name in CHECKED and arm not in KINDS:
            assert refused is (arm in REFUSED), name
    assert arm in HARMLESS or arm in KINDS or not (tmp_path / "export").exists()


def smuggle(repository: Path, parent: str, folder: Path) -> str:
    """A commit of everything in the folder, `.git` too, written past every check of ours and of git's."""
    objects = tree_objects(dict(everything(folder)))
    lines = [f"tree {objects[-1].sha}", f"parent {parent}", "author a <a@b> 1 +0000", "committer a <a@b> 1 +0000"]
    commit = GitObject("commit", ("\n".join(lines) + "\n\nsmuggled\n").encode())
    write_loose(repository, [*objects, commit])
    return commit.sha


def write_loose(repository: Path, objects: list[GitObject]) -> None:
    for item in objects:
        place = repository / "objects" / item.sha[:2] / item.sha[2:]
        place.parent.mkdir(exist_ok=True)
        place.unlink(missing_ok=True)
        place.write_bytes(zlib.compress(f"{item.kind} {len(item.data)}\0".encode() + item.data))


def everything(folder: Path) -> Iterator[tuple[str, Entry]]:
    for place, folders, files in os.walk(folder):
        for name in (*files, *folders):
            path = Path(place) / name
            shown = str(path.relative_to(folder)).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            if shown.count("\ufffd"):
                shown = f"\x01{shown}"  # tree_objects writes UTF-8 only; still a name that no candidate may have
            if path.is_symlink():
                yield shown, Entry("120000", os.fsencode(os.readlink(path)))
            elif path.is_file() and path.stat().st_size < 1 << 20:
                yield shown, Entry("100755" if os.access(path, os.X_OK) else "100644", path.read_bytes())
        if not files and not folders:
            yield f"{Path(place).relative_to(folder)}/.keep", Entry("100644", b"")


def test_a_delta_with_a_planted_git_folder_is_refused_on_arrival(
    repository: Repository, seed: Commit, trap: Trap, tmp_path: Path
) -> None:
    fsmonitor(trap.folder, trap.program)
    stranger = Repository.create(tmp_path / "stranger.git", durable=False)
    stranger.absorb(repository.delta(seed.sha))
    sha = smuggle(tmp_path / "stranger.git", seed.sha, trap.folder)
    with pytest.raises(TreeRefused, match="git's own folders"):
        repository.absorb(stranger.delta(sha))
    assert not repository.has(sha)


def test_a_link_that_leads_out_is_refused_when_it_comes_out(repository: Repository, tmp_path: Path) -> None:
    """What names and kinds do not show on arrival: a worker's delta may hold what `commit_tree` would refuse."""
    up = GitObject("blob", b"../../etc")
    tree = GitObject("tree", b"120000 up\0" + bytes.fromhex(up.sha))
    commit = commit_object(tree.sha, (), "m", 1)
    sha = repository.absorb(make_pack([packed(item) for item in (up, tree, commit)]))
    with pytest.raises(TreeRefused):
        repository.export(sha, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_submodule_is_refused_on_arrival_and_when_it_comes_out(repository: Repository, tmp_path: Path) -> None:
    tree = GitObject("tree", b"160000 sub\0" + bytes.fromhex("1" * 40))
    commit = commit_object(tree.sha, (), "m", 1)
    with pytest.raises(TreeRefused, match="a submodule"):
        repository.absorb(make_pack([packed(tree), packed(commit)]))
    write_loose(tmp_path / "population.git", [tree, commit])
    with pytest.raises(TreeRefused, match="a submodule"):
        repository.export(commit.sha, tmp_path / "out")
    assert not (tmp_path / "out").exists()
