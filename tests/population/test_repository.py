"""Commits from untrusted folders: exact and deterministic (what is armed in them: `test_armed_trees.py`)."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from population.disk import Disk
from population.errors import RepositoryError
from population.git import executable
from population.git_objects import Entry, GitObject, commit_object, tree_objects
from population.object_store import ObjectStore
from population.packs import make_pack, packed
from population.repository import Commit, Conflict, Repository, TreeRefused
from population.trees import check_entries, write_folder

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


def test_deltas_carry_what_the_parents_do_not_have(repository: Repository, seed: Commit, tmp_path: Path) -> None:
    worker = Repository.cache(tmp_path / "cache.git")
    assert not worker.has(seed.sha)
    assert worker.absorb(repository.delta(seed.sha)) == seed.sha
    child = edited(worker, seed, 1, server__py=b"print(2)\n")
    delta = worker.delta(child.sha)
    assert len(delta) < 500
    assert repository.absorb(delta) == repository.absorb(delta) == child.sha
    assert repository.delta(child.sha) == delta
    assert repository.read_files(child.sha, "*.py") == {"server.py": "print(2)\n"}
    assert repository.tree_of(child.sha) == child.tree
    (tmp_path / "d.pack").write_bytes(delta)
    listed = subprocess.run(["git", "index-pack", str(tmp_path / "d.pack")], check=True, capture_output=True).stdout
    assert listed.decode().split() == [delta[-20:].hex()]
    index = (tmp_path / "d.idx").read_bytes()
    shown = subprocess.run(["git", "show-index"], check=True, capture_output=True, input=index)
    names = {line.split()[1] for line in shown.stdout.decode().splitlines()}
    assert len(names) == 3 and {child.sha, child.tree} < names


def test_a_delta_without_its_base_or_with_garbage_is_refused(
    repository: Repository, seed: Commit, tmp_path: Path
) -> None:
    child = edited(repository, seed, 1, server__py=b"2")
    stranger = Repository.create(tmp_path / "stranger.git")
    with pytest.raises(RepositoryError, match=f"builds on {seed.sha}"):
        stranger.absorb(repository.delta(child.sha))
    for rubbish in (b"", b"rubbish", repository.delta(seed.sha)[:-30], repository.delta(seed.sha) + b"x"):
        with pytest.raises(RepositoryError, match="expected a pack that matches its checksum"):
            stranger.absorb(rubbish)
    assert not stranger.has(seed.sha) and not list((tmp_path / "stranger.git" / "objects" / "pack").iterdir())


def test_whatever_is_changed_in_a_delta_is_noticed(repository: Repository, seed: Commit, tmp_path: Path) -> None:
    """With a checksum that fits: what was tampered with is another object, and then something is missing or strange."""
    stranger = Repository.create(tmp_path / "stranger.git", durable=False)
    body = repository.delta(seed.sha)[:-20]
    for at in range(len(body)):
        bad = body[:at] + bytes([body[at] ^ 0x15]) + body[at + 1 :]
        with pytest.raises(RepositoryError):
            stranger.absorb(bad + hashlib.sha1(bad).digest())
    assert not list((tmp_path / "stranger.git" / "objects" / "pack").iterdir())


def crafted(*objects: GitObject) -> bytes:
    return make_pack([packed(item) for item in objects])


def test_a_delta_is_one_whole_commit_and_nothing_else(repository: Repository, seed: Commit) -> None:
    blob, other = GitObject("blob", b"x"), GitObject("blob", b"y")
    tree = tree_objects({"a": Entry("100644", b"x")})[-1]
    commit, twin = (commit_object(tree.sha, (seed.sha,), "m", number) for number in (1, 2))
    assert repository.absorb(crafted(blob, tree, commit)) == commit.sha
    away = tree_objects({"a": Entry("100644", b"z")})[-1]
    as_folder = GitObject("tree", b"40000 a\0" + bytes.fromhex(GitObject("blob", b"q").sha))
    cases = {
        "expected only objects of commit": [blob, other, tree, twin],
        "the delta of one commit, got 2": [blob, tree, commit, twin],
        "the delta of one commit, got 0": [blob, tree],
        "expected the blob [0-9a-f]{40} in the delta or here": [away, commit_object(away.sha, (), "m", 3)],
        "expected the tree [0-9a-f]{40} .* got blob": [
            as_folder,
            GitObject("blob", b"q"),
            commit_object(as_folder.sha, (), "m", 4),
        ],
        "expected the tree [0-9a-f]{40} .* got neither": [commit_object("0" * 40, (), "m", 5)],
        "expected the tree [0-9a-f]{40} .* got commit": [commit_object(seed.sha, (), "m", 5)],
        "builds on": [blob, tree, commit_object(tree.sha, ("1" * 40,), "m", 6)],
        "expected a git commit": [blob, tree, GitObject("commit", b"tree " + tree.sha.encode() + b"\n\nm\n")],
    }
    for problem, objects in cases.items():
        with pytest.raises(RepositoryError, match=problem):
            repository.absorb(crafted(*objects))
        assert not repository.has(objects[-1].sha)


@pytest.mark.parametrize(
    "rows",
    [
        [b"100644 b", b"100644 a"],
        [b"100644 a", b"100644 a"],
        [b"160000 a"],
        [b"040000 a"],
        [b"100664 a"],
        [b"100644 .git"],
        [b"100644 ."],
        [b"100644 a/b"],
        [b"100644 "],
        [b"100644 \xff"],
    ],
    ids=lambda rows: b" ".join(rows).decode("latin-1"),
)
def test_trees_that_git_would_not_write_are_refused_on_arrival(repository: Repository, rows: list[bytes]) -> None:
    blob = GitObject("blob", b"x")
    tree = GitObject("tree", b"".join(row + b"\0" + bytes.fromhex(blob.sha) for row in rows))
    with pytest.raises(TreeRefused):
        repository.absorb(crafted(blob, tree, commit_object(tree.sha, (), "m", 1)))


def test_a_bomb_is_refused_before_it_explodes(repository: Repository) -> None:
    huge = packed(GitObject("blob", bytes(40 << 20)))
    tree = tree_objects({"a": Entry("100644", b"x")})[-1]
    bomb = make_pack([huge, huge, huge, huge, packed(commit_object(tree.sha, (), "m", 1))])
    assert len(bomb) < 1 << 20
    with pytest.raises(RepositoryError, match="expected a whole object of at most"):
        repository.absorb(bomb)


def lineage(repository: Repository, seed: Commit, count: int) -> list[Commit]:
    """Children of children, each with another server and another file in a folder."""
    commits = [seed]
    for n in range(1, count + 1):
        files = {**FILES, "server.py": b"print(%d)\n" % n, f"deep/{n % 5}.py": b"x = %d\n" % n}
        commits.append(repository.commit_tree(files, parents=(commits[-1].sha,), message=f"child {n}", number=n))
    return commits


def test_git_takes_what_we_write_for_its_own(repository: Repository, seed: Commit, tmp_path: Path) -> None:
    commits = lineage(repository, seed, 40)
    for n, commit in enumerate(commits):
        repository.set_ref(f"c{n:06d}", commit.sha)
    home = tmp_path / "population.git"
    fsck = subprocess.run(["git", f"--git-dir={home}", "fsck", "--strict", "--full"], capture_output=True, check=True)
    assert fsck.stdout == b""
    log = subprocess.run(
        ["git", f"--git-dir={home}", "log", "--format=%H", "c000040"], capture_output=True, check=False
    )
    assert log.returncode  # candidates are no branches
    name = "refs/candidates/c000040"
    log = subprocess.run(["git", f"--git-dir={home}", "log", "--format=%H", name], capture_output=True, check=True)
    assert log.stdout.decode().split() == [commit.sha for commit in reversed(commits)]
    clone = tmp_path / "clone.git"
    subprocess.run(["git", "clone", "-q", "--mirror", f"file://{home}", str(clone)], capture_output=True, check=True)
    assert Repository.open(clone).read_files(commits[-1].sha, "server.py") == {"server.py": "print(40)\n"}
    subprocess.run(["git", f"--git-dir={clone}", "fsck", "--strict"], capture_output=True, check=True)


def test_many_rounds_leave_few_packs_and_lose_nothing(repository: Repository, seed: Commit, tmp_path: Path) -> None:
    reader = Repository.open(tmp_path / "population.git")
    commits = lineage(repository, seed, 64)
    packs = list((tmp_path / "population.git" / "objects" / "pack").iterdir())
    assert len(packs) <= 2 * 9 and {path.suffix for path in packs} == {".pack", ".idx"}
    for n, commit in enumerate(commits[1:], start=1):
        assert reader.read_files(commit.sha, "server.py") == {"server.py": f"print({n})\n"}


def test_after_a_gc_of_the_users_everything_is_still_read(repository: Repository, seed: Commit, tmp_path: Path) -> None:
    commits = lineage(repository, seed, 30)
    for n, commit in enumerate(commits):
        repository.set_ref(f"c{n:06d}", commit.sha)
    home = tmp_path / "population.git"
    subprocess.run(["git", f"--git-dir={home}", "gc", "-q", "--aggressive"], capture_output=True, check=True)
    assert not (home / "refs" / "candidates" / "c000003").exists()
    for fresh in (repository, Repository.open(home)):
        for n, commit in enumerate(commits[1:], start=1):
            assert fresh.ref(f"c{n:06d}") == commit.sha
            assert fresh.read_files(commit.sha, "server.py") == {"server.py": f"print({n})\n"}
    more = lineage(repository, commits[-1], 3)
    repository.recover({f"c{n:06d}": commit.sha for n, commit in enumerate([*commits, *more[1:]])})
    subprocess.run(["git", f"--git-dir={home}", "fsck", "--strict"], capture_output=True, check=True)
    assert Repository.open(home).log(more[-1].sha)[-1].sha == seed.sha


def test_a_damaged_object_is_noticed_when_it_is_read(repository: Repository, seed: Commit, tmp_path: Path) -> None:
    (pack,) = (tmp_path / "population.git" / "objects" / "pack").glob("*.pack")
    data = bytearray(pack.read_bytes())
    data[-45] ^= 1
    pack.write_bytes(data)
    with pytest.raises(RepositoryError):
        Repository.open(tmp_path / "population.git").read_files(seed.sha)


def test_a_batch_is_read_at_once_and_kept_together(repository: Repository, seed: Commit, tmp_path: Path) -> None:
    worker = Repository.cache(tmp_path / "cache.git")
    worker.absorb(repository.delta(seed.sha))
    children = [edited(worker, seed, n, server__py=b"print(%d)\n" % n) for n in range(1, 5)]
    home = tmp_path / "population.git"
    before = len(list((home / "objects" / "pack").iterdir()))
    with repository.batch():
        for n, child in enumerate(children, start=1):
            repository.absorb(worker.delta(child.sha))
            repository.set_ref(f"c{n:06d}", child.sha)
            assert repository.ref(f"c{n:06d}") == child.sha
            assert repository.read_files(child.sha, "*.py") == {"server.py": f"print({n})\n"}
        assert len(list((home / "objects" / "pack").iterdir())) == before
        assert not Repository.open(home).has(children[0].sha)
    assert all(Repository.open(home).ref(f"c{n:06d}") == child.sha for n, child in enumerate(children, start=1))
    assert all(Repository.open(home).has(child.sha) for child in children)


def test_of_a_batch_that_fails_nothing_is_kept(repository: Repository, seed: Commit, tmp_path: Path) -> None:
    worker = Repository.cache(tmp_path / "cache.git")
    worker.absorb(repository.delta(seed.sha))
    child = edited(worker, seed, 1, server__py=b"print(1)\n")

    def add_all() -> None:
        with repository.batch():
            repository.absorb(worker.delta(child.sha))
            repository.set_ref("c000001", child.sha)
            repository.absorb(b"rubbish")

    with pytest.raises(RepositoryError, match="matches its checksum"):
        add_all()
    assert not repository.has(child.sha)
    with pytest.raises(RepositoryError, match="c000001, found none"):
        repository.ref("c000001")


def test_no_git_runs_on_the_way_of_a_child(
    repository: Repository, seed: Commit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Repository.cache(tmp_path / "cache.git")
    monkeypatch.setenv("PATH", str(tmp_path))
    executable.cache_clear()
    try:
        worker.absorb(repository.delta(seed.sha))
        child = edited(worker, seed, 1, server__py=b"print(1)\n")
        repository.absorb(worker.delta(child.sha))
        repository.set_ref("c000001", child.sha)
        repository.recover({"c000001": child.sha})
        repository.export(repository.ref("c000001"), tmp_path / "out")
        with pytest.raises(RepositoryError, match="expected git"):
            repository.log(child.sha)
    finally:
        executable.cache_clear()


def test_several_processes_share_one_cache(tmp_path: Path) -> None:
    """Each merges packs that the others may be reading or removing."""
    hub = Repository.create(tmp_path / "hub.git", durable=False)
    seed = hub.commit_tree(FILES, parents=(), message="seed", number=0)
    Repository.cache(tmp_path / "cache.git").absorb(hub.delta(seed.sha))
    script = (
        "import sys; from pathlib import Path; from population.repository import Repository\n"
        "path, seed, who = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])\n"
        "r = Repository.cache(path); made = []\n"
        "for n in range(40):\n"
        "    files = {'server.py': b'%d' % n, 'who.txt': b'%d' % (who if n % 2 else 0)}\n"
        "    made.append((r.commit_tree(files, parents=(seed,), message='m', number=n).sha, n))\n"
        "    assert all(r.read_files(sha, '*.py') == {'server.py': str(m)} for sha, m in made)\n"
        "print(*(sha for sha, _ in made))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "cache.git"), seed.sha]
    running = [subprocess.Popen([*command, str(who)], stdout=subprocess.PIPE) for who in range(1, 5)]
    said = [process.communicate(timeout=300)[0].decode().split() for process in running]
    assert [process.returncode for process in running] == [0] * 4
    everything = Repository.cache(tmp_path / "cache.git")
    for shas in said:
        assert [everything.read_files(sha, "*.py")["server.py"] for sha in shas] == [str(n) for n in range(40)]
    fsck = ["git", f"--git-dir={tmp_path / 'cache.git'}", "fsck", "--strict"]
    subprocess.run(fsck, capture_output=True, check=True)


def test_an_index_without_its_pack_hides_nothing(repository: Repository, seed: Commit, tmp_path: Path) -> None:
    """What a power cut may leave of a pack whose contents are in another one."""
    folder = tmp_path / "population.git" / "objects" / "pack"
    (index,) = folder.glob("*.idx")
    shutil.copy(index, folder / f"pack-{'0' * 40}.idx")
    shutil.copy(index, folder / f"pack-{'f' * 40}.idx")
    assert Repository.open(tmp_path / "population.git").read_files(seed.sha, "*.py") == {"server.py": "print(1)\n"}


def test_a_pack_that_vanishes_under_a_reader_is_found_in_another(tmp_path: Path) -> None:
    hub = Repository.create(tmp_path / "hub.git", durable=False)
    seed = hub.commit_tree(FILES, parents=(), message="seed", number=0)
    store = ObjectStore(tmp_path / "hub.git" / "objects", Disk(), lambda sha: None)
    assert store.kind(seed.sha) == "commit"
    (tmp_path / "hub.git" / "objects" / "pack").rename(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "hub.git" / "objects" / "pack")
    for path in (tmp_path / "hub.git" / "objects" / "pack").iterdir():
        path.rename(path.with_stem("pack-" + "a" * 40))
    found = store.read(seed.sha)
    assert found is not None and found.sha == seed.sha


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
    found = repository.merge(ours.sha, theirs.sha, message="merge", number=7)
    assert isinstance(found, Conflict) and found.paths == ("server.py",)
    show = ["git", "-C", str(repository._path), "show", f"{found.tree}:server.py"]
    left = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    assert "print(5)" in left and "print(6)" in left and "<<<<<<<" in left, "what git left of it, for who resolves it"


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
        lambda: repository.delta(sha),
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
