"""Decides how candidates become commits and travel between machines: a bare git repository that we write ourselves.

The repository belongs to the driver. Git is never run inside a candidate's tree: files are read by `population.trees`
and become objects here, so that no hook, filter, attribute, fsmonitor, alias or submodule of a candidate or of the
user's configuration is ever looked at. Git itself only merges, and shows differences and histories to people.
"""

from __future__ import annotations

import fcntl
import fnmatch
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from population import delta as deltas
from population.disk import Disk, sync_tree, write_failed
from population.drafts import Drafts
from population.errors import InfrastructureError, RepositoryError
from population.git import read_object, require_version, run_git
from population.git_objects import Entry, GitObject, commit_object, parse_commit, require_sha, tree_objects
from population.history import Conflict, LogEntry, diff, log, merge_base, merged_tree
from population.object_store import ObjectStore
from population.refs import BASELINES, CANDIDATES, Refs, baseline_ref, candidate_ref
from population.repair import break_locks, remove_drafts
from population.trees import TreeRefused, check_entries, commit_entries, read_folder, write_folder

__all__ = ["Commit", "Conflict", "LogEntry", "Repository", "TreeRefused"]

_REFS_AT_ONCE = 200
"""Files of one round are open at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit and its tree, as 40 hexadecimal digits each."""

    sha: str
    tree: str


class Repository:
    """A bare git repository. Any number of processes may read and add objects; one writes refs. For one thread."""

    def __init__(self, path: Path, durable: bool = True, disk: Disk | None = None) -> None:
        """Use `create`, `open` or `cache`."""
        self._path, self._durable, self._disk = path, durable, disk or Disk()
        self._store = ObjectStore(path / "objects", self._disk, partial(read_object, path))
        self._refs = Refs(path, self._disk)
        self._in_batch = False

    @classmethod
    def create(cls, path: Path, durable: bool = True) -> Repository:
        """A new repository; `durable`: objects and refs are on stable storage when a call returns."""
        require_version()
        path.parent.mkdir(parents=True, exist_ok=True)
        run_git(None, "init", "--bare", "-q", "--object-format=sha1", "--template=", "--initial-branch=none", str(path))
        for folder in (CANDIDATES, BASELINES, "objects/pack"):
            (path / folder).mkdir(parents=True, exist_ok=True)
        if durable:
            try:
                sync_tree(path, Disk())
            except OSError as error:
                write_failed(error, path)
        return cls(path, durable)

    @classmethod
    def open(cls, path: Path, durable: bool = True, disk: Disk | None = None) -> Repository:
        """An existing one; `disk` is the seam for tests.

        Raises:
            RepositoryError: there is none.
        """
        require_version()
        if not (path / "HEAD").is_file() or not (path / "objects" / "pack").is_dir():
            raise RepositoryError(
                f"{path}: expected a bare git repository, found none; was the run folder moved or cut short?"
            )
        return cls(path, durable, disk)

    @classmethod
    def cache(cls, path: Path) -> Repository:
        """This machine's copy, made if it is missing; several processes may ask at once. Not durable."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / f"{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (path / "HEAD").is_file() and (path / "complete").is_file():
                return cls(path, durable=False)
            shutil.rmtree(path, ignore_errors=True)  # its maker was killed
            repository = cls.create(path, durable=False)
            (path / "complete").touch()
            return repository

    @contextmanager
    def batch(self) -> Iterator[None]:
        """What is added inside is read at once, and becomes durable together when the block ends: one round of syncs.

        If the block raises, nothing of it is kept.

        Raises:
            InfrastructureError: the disk is full or failed; some of it may have been kept.
        """
        if self._in_batch:
            yield
            return
        self._in_batch = True
        try:
            yield
            self._publish()
        finally:
            self._in_batch = False
            self._store.drop()
            self._refs.drop()

    def _publish(self) -> None:
        drafts = Drafts(self._store.pack_folder, self._disk, self._durable)
        self._store.draft(drafts)
        self._refs.draft(drafts)  # after the objects: a ref never names what a power cut may take
        drafts.publish()
        self._store.settle()

    # --- objects ------------------------------------------------------------------------------------------------------

    def has(self, sha: str) -> bool:
        """Whether the commit is here, which means: with its tree and its ancestors."""
        return self._store.kind(require_sha(sha)) == "commit"

    def tree_of(self, sha: str) -> str:
        """The tree of a commit."""
        return parse_commit(self._read(sha).data)[0]

    def commit_tree(
        self, files: Path | Mapping[str, bytes], *, parents: Sequence[str], message: str, number: int
    ) -> Commit:
        """Commit a folder (untrusted, see `population.trees`) or texts by path. Equal arguments give equal commits.

        Raises:
            TreeRefused: the files may not be a candidate.
        """
        if isinstance(files, Path):
            entries = read_folder(files)
        else:
            entries = {path: Entry("100644", data) for path, data in files.items()}
            check_entries(entries)
        objects = tree_objects(entries)
        commit = commit_object(objects[-1].sha, parents, message, number)
        with self.batch():
            self._store.add((item, None) for item in [*objects, commit])
        return Commit(sha=commit.sha, tree=objects[-1].sha)

    def export(self, sha: str, folder: Path) -> None:
        """Write the files of a commit or tree into an empty folder (made if missing). Nothing is executed or converted.

        Raises:
            TreeRefused: it holds what no candidate may have.
        """
        found = self._read(sha)
        entries = commit_entries(sha if found.kind == "tree" else parse_commit(found.data)[0], self._read)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RepositoryError(f"{folder}: expected an empty folder to export {sha[:12]} into")
        try:
            write_folder(entries, folder)
        except OSError as error:
            raise InfrastructureError(f"{folder}: cannot export {sha[:12]}: {error.strerror}") from error

    def read_files(self, sha: str, pattern: str = "*") -> dict[str, str]:
        """Path → text of the files whose path matches the shell pattern (`*` crosses folders), without links."""
        entries = commit_entries(self.tree_of(sha), self._read, lambda path: fnmatch.fnmatchcase(path, pattern))
        return {path: e.data.decode("utf-8", errors="replace") for path, e in entries.items() if e.mode != "120000"}

    def merge(self, ours: str, theirs: str, *, message: str, number: int) -> Commit | Conflict:
        """Three-way merge of two commits from their common ancestor, without a work tree.

        Raises:
            TreeRefused: the result may not be a candidate.
        """
        merged = merged_tree(self._path, require_sha(ours), require_sha(theirs), self._durable)
        if isinstance(merged, Conflict):
            return merged
        commit = commit_object(merged, (ours, theirs), message, number)
        commit_entries(merged, self._read)
        with self.batch():
            self._store.add((item, None) for item in deltas.new_objects(commit, self._read))
        return Commit(sha=commit.sha, tree=merged)

    # --- travelling ---------------------------------------------------------------------------------------------------

    def delta(self, sha: str) -> bytes:
        """What of a commit its parents do not have, for a repository that has them."""
        return deltas.make(self._read(sha), self._read)

    def absorb(self, delta: bytes) -> str:
        """Take in a commit that was made elsewhere, checked as `population.delta` says; returns its hash.

        Raises:
            RepositoryError: not a delta, or it builds on what is not here.
            TreeRefused: it holds what no candidate may have.
        """
        commit, objects = deltas.open_delta(delta, self._store.kind)
        with self.batch():
            self._store.add(objects)
        return commit.sha

    # --- refs ---------------------------------------------------------------------------------------------------------

    def set_ref(self, candidate: str, sha: str) -> None:
        """Keep a commit as refs/candidates/<id>; one that never got into the ledger is replaced."""
        self._set(candidate_ref(candidate), sha)

    def ref(self, candidate: str) -> str:
        """The commit of refs/candidates/<id>."""
        return self._get(candidate_ref(candidate))

    def set_baseline(self, name: str, sha: str) -> None:
        """Keep a commit as refs/baselines/<name>."""
        self._set(baseline_ref(name), sha)

    def baseline(self, name: str) -> str:
        """The commit of refs/baselines/<name>."""
        return self._get(baseline_ref(name))

    def recover(self, commits: Mapping[str, str]) -> None:
        """For the driver alone: put right what a killed driver, its git, or one that was replaced has left behind.

        Lock files and unfinished files of processes that are gone are removed. `commits` says what the ledger has
        (candidate id → commit); a ref that is missing or differs is set again.

        Raises:
            RepositoryError: a commit that the ledger names is not here.
        """
        break_locks(self._path)
        remove_drafts(self._store.pack_folder)
        for candidate, sha in commits.items():
            if not self.has(sha):
                raise RepositoryError(f"{self._path}: expected commit {sha} of {candidate}, found none; restore it")
        refs = self._refs.below(CANDIDATES)
        wrong = [candidate for candidate, sha in commits.items() if refs.get(candidate) != sha]
        for start in range(0, len(wrong), _REFS_AT_ONCE):
            with self.batch():
                for candidate in wrong[start : start + _REFS_AT_ONCE]:
                    self.set_ref(candidate, commits[candidate])

    def _set(self, ref: str, sha: str) -> None:
        if not self.has(sha):
            raise RepositoryError(f"{self._path}: expected commit {sha} for {ref}, found none")
        with self.batch():
            self._refs.set(ref, sha)

    def _get(self, ref: str) -> str:
        sha = self._refs.get(ref)
        if sha is None:
            raise RepositoryError(f"{self._path}: expected {ref}, found none")
        return sha

    # --- reading for people -------------------------------------------------------------------------------------------

    def diff(self, a: str, b: str, paths: Sequence[str] = ()) -> str:
        """Unified diff from one commit to another. It is a candidate's text: escape it before it goes to a terminal."""
        return diff(self._path, require_sha(a), require_sha(b), paths)

    def merge_base(self, ours: str, theirs: str) -> str:
        """The last commit that both descend from."""
        return merge_base(self._path, require_sha(ours), require_sha(theirs))

    def log(self, sha: str, limit: int = 100) -> tuple[LogEntry, ...]:
        """A commit and its ancestors, newest first."""
        return log(self._path, require_sha(sha), limit)

    def _read(self, sha: str) -> GitObject:
        found = self._store.read(require_sha(sha))
        if found is None:
            raise RepositoryError(
                f"{self._path}: expected commit {sha} and all its files in the repository, but some are missing"
            )
        return found
