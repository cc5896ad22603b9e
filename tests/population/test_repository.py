"""Commits from untrusted folders: exact and deterministic (what is armed in them: `test_armed_trees.py`)."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from population.errors import RepositoryError
from population.repository import Commit, Conflict, Repository, TreeRefused
from population.trees import Entry, check_entries, tree_objects, write_folder

FILES = {
    "server.py": b"print(1)\n",
    "engine.toml": b'[component]\nname = "engine"\n',
    "deep/er/x.bin": bytes(range(256)),
}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path / "population.git")


@pytest.fixture
def seed(repository: Repository) -> Commit:
    return repository.commit_tree(FILES, parents=(), message="seed", number=0)


def folder_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def edited(repository: Repository, parent: Commit, number: int, **files: bytes) -> Commit:
    names = {name.replace("__", "."): data for name, data in files.items()}
    return repository.commit_tree({**FILES, **names}, parents=(parent.sha,), message="edit", number=number)


def test_export_gives_back_what_was_committed(repository: Repository, seed: Commit, tmp_path: Path) -> None:
    repository.export(seed.sha, tmp_path / "out")
    assert folder_of(tmp_path / "out") == FILES
    again = repository.commit_tree(tmp_path / "out", parents=(), message="seed", number=0)
    assert again == seed


def test_modes_links_and_left_overs(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / "__pycache__").mkdir(parents=True)
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    (source / "sub" / "link").symlink_to("../run.sh")
    (source / "sub" / "__pycache__" / "x.pyc").write_bytes(b"stale")
    commit = repository.commit_tree(source, parents=(), message="m", number=1)
    repository.export(commit.sha, tmp_path / "out")
    assert os.access(tmp_path / "out" / "run.sh", os.X_OK)
    assert os.readlink(tmp_path / "out" / "sub" / "link") == "../run.sh"
    assert not (tmp_path / "out" / "sub" / "__pycache__").exists()


def test_the_same_child_gives_the_same_commit_anywhere(repository: Repository, seed: Commit, tmp_path: Path) -> None:
    other = Repository.cache(tmp_path / "cache.git")
    assert other.commit_tree(dict(reversed(FILES.items())), parents=(), message="seed", number=0) == seed
    assert repository.commit_tree(FILES, parents=(), message="seed", number=1).sha != seed.sha
    assert repository.commit_tree(FILES, parents=(), message="seed", number=1).tree == seed.tree
    assert seed.sha == "ecef8a5819680dd1fef0fe0a1ce4157eb902f0ff"


def test_git_agrees_with_our_objects(repository: Repository, seed: Commit, tmp_path: Path) -> None:
    git = ["git", f"--git-dir={tmp_path / 'population.git'}"]
    fsck = subprocess.run([*git, "fsck", "--strict", "--no-dangling"], capture_output=True, check=True)
    assert b"error" not in fsck.stdout + fsck.stderr
    show = subprocess.run([*git, "cat-file", "-p", seed.sha], capture_output=True, check=True).stdout.decode()
    assert "author VibeServe <vibeserve@localhost> 1767225600 +0000" in show


def test_bundles_carry_commits_on_top_of_what_the_receiver_has(
    repository: Repository, seed: Commit, tmp_path: Path
) -> None:
    worker = Repository.cache(tmp_path / "cache.git")
    assert not worker.has(seed.sha)
    assert worker.unbundle(repository.bundle(seed.sha, have=())) == (seed.sha,)
    child = edited(worker, seed, 1, server__py=b"print(2)\n")
    bundle = worker.bundle(child.sha, have=(seed.sha,))
    assert len(bundle) < 1000
    assert repository.unbundle(bundle) == (child.sha,)
    assert repository.read_files(child.sha, "*.py") == {"server.py": "print(2)\n"}
    assert repository.tree_of(child.sha) == child.tree
    assert repository.bundle(seed.sha, have=(seed.sha,)) == b"" and repository.unbundle(b"") == ()
    (tmp_path / "b").write_bytes(bundle)
    verify = ["git", f"--git-dir={tmp_path / 'population.git'}", "bundle", "verify", "-q", str(tmp_path / "b")]
    subprocess.run(verify, check=True, capture_output=True)


def test_a_bundle_without_its_base_or_with_garbage_is_refused(
    repository: Repository, seed: Commit, tmp_path: Path
) -> None:
    child = edited(repository, seed, 1, server__py=b"2")
    stranger = Repository.create(tmp_path / "stranger.git")
    with pytest.raises(RepositoryError, match=f"builds on {seed.sha}"):
        stranger.unbundle(repository.bundle(child.sha, have=(seed.sha,)))
    with pytest.raises(RepositoryError, match="expected a git bundle"):
        stranger.unbundle(b"rubbish")
    with pytest.raises(RepositoryError, match="unpack-objects"):
        stranger.unbundle(repository.bundle(seed.sha, have=())[:-30])


def test_merge_joins_edits_of_different_files(repository: Repository, seed: Commit) -> None:
    ours = edited(repository, seed, 1, server__py=b"print(2)\n")
    theirs = edited(repository, seed, 2, engine__toml=b"# other\n")
    merged = repository.merge(ours.sha, theirs.sha, message="merge", number=3)
    assert isinstance(merged, Commit)
    assert repository.read_files(merged.sha, "*.*")["server.py"] == "print(2)\n"
    assert repository.read_files(merged.sha, "*.toml") == {"engine.toml": "# other\n"}
    assert repository.log(merged.sha)[0].parents == (ours.sha, theirs.sha)
    assert repository.merge(ours.sha, theirs.sha, message="merge", number=3) == merged
    assert {e.sha for e in repository.log(merged.sha)} == {merged.sha, ours.sha, theirs.sha, seed.sha}


def test_merge_names_conflicts(repository: Repository, seed: Commit) -> None:
    ours, theirs = (edited(repository, seed, n, server__py=b"print(%d)\n" % n) for n in (5, 6))
    assert repository.merge(ours.sha, theirs.sha, message="merge", number=7) == Conflict(paths=("server.py",))


def test_diff_shows_chosen_paths(repository: Repository, seed: Commit) -> None:
    child = edited(repository, seed, 1, server__py=b"print(2)\n", engine__toml=b"x = 1\n")
    assert "-print(1)\n+print(2)" in repository.diff(seed.sha, child.sha)
    assert "engine" not in repository.diff(seed.sha, child.sha, paths=("server.py",))
    assert repository.diff(seed.sha, child.sha, paths=("--output=/tmp/x", ":(glob)*")) == ""


def test_refs_name_candidates_and_baselines(repository: Repository, seed: Commit, tmp_path: Path) -> None:
    child = edited(repository, seed, 1, server__py=b"2")
    repository.set_ref("c000001", seed.sha)
    repository.set_ref("c000001", child.sha)
    repository.set_baseline("sequential-kv", seed.sha)
    reopened = Repository.open(tmp_path / "population.git")
    assert reopened.ref("c000001") == child.sha and reopened.baseline("sequential-kv") == seed.sha
    with pytest.raises(RepositoryError, match="expected refs/candidates/c000002, found none"):
        reopened.ref("c000002")
    with pytest.raises(RepositoryError, match="expected a bare git repository"):
        Repository.open(tmp_path / "nowhere")


@pytest.mark.parametrize("sha", ["HEAD", "--upload-pack=touch x", "0" * 39, "0" * 40 + "\n", "G" * 40])
def test_only_full_hashes_reach_git(repository: Repository, sha: str, tmp_path: Path) -> None:
    calls: list[Callable[[], object]] = [
        lambda: repository.export(sha, tmp_path / "o"),
        lambda: repository.bundle(sha, have=()),
        lambda: repository.diff(sha, sha),
        lambda: repository.log(sha),
        lambda: repository.merge(sha, sha, message="", number=1),
        lambda: repository.set_ref("c000001", sha),
        lambda: repository.has(sha),
        lambda: repository.commit_tree(FILES, parents=(sha,), message="", number=1),
    ]
    for call in calls:
        with pytest.raises(RepositoryError, match="40 hexadecimal digits"):
            call()


@pytest.mark.parametrize("candidate", ["../../x", "c1", "c000001.lock", "", "c000001\n"])
def test_only_candidate_ids_become_refs(repository: Repository, seed: Commit, candidate: str) -> None:
    with pytest.raises(RepositoryError, match="a candidate id"):
        repository.set_ref(candidate, seed.sha)


def test_a_missing_commit_is_an_error_of_ours(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="some are missing"):
        repository.export("0" * 40, tmp_path / "out")
    assert not repository.has("0" * 40)


def test_a_cache_is_made_once_by_whoever_comes_first(tmp_path: Path) -> None:
    made: list[Repository] = []
    threads = [threading.Thread(target=lambda: made.append(Repository.cache(tmp_path / "c.git"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    commits = {r.commit_tree(FILES, parents=(), message="m", number=1).sha for r in made}
    assert len(made) == 4 and len(commits) == 1


def test_links_are_written_last_and_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError):
        write_folder({"a": Entry("120000", b"../victim"), "a/b": Entry("100644", b"x")}, tmp_path / "out")
    assert not (tmp_path / "victim").exists()


def test_problems_are_listed_all_at_once() -> None:
    with pytest.raises(TreeRefused) as refusal:
        check_entries({"-x": Entry("100644", b""), "y\x00": Entry("100644", b""), "ok": Entry("100644", b"")})
    assert len(refusal.value.problems) == 2


def test_an_empty_tree_has_gits_hash() -> None:
    assert tree_objects({})[-1].sha == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
