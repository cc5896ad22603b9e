"""Decides how candidates become commits and travel between machines; the only place that runs git.

The repository is bare and belongs to the driver. Git is never run inside a candidate's tree: files are read by
`population.trees`, become objects by `git unpack-objects`, and come back through `git cat-file`, so that no hook,
filter, attribute, fsmonitor, alias or submodule of a candidate or of the user's configuration is ever looked at.
A commit's hash follows from its files, parents, message and child number alone.
"""

from __future__ import annotations

import errno
import fcntl
import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from population.disk import Disk
from population.errors import InfrastructureError, RepositoryError
from population.trees import (
    Entry,
    GitObject,
    TreeRefused,
    check_entries,
    parse_tree,
    read_folder,
    tree_objects,
    write_folder,
)

__all__ = ["Commit", "Conflict", "LogEntry", "Repository", "TreeRefused"]

_SHA = re.compile(r"[0-9a-f]{40}", re.ASCII)
_CANDIDATE = re.compile(r"c\d{6,9}", re.ASCII)
_BASELINE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}", re.ASCII)
_IDENTITY = "VibeServe <vibeserve@localhost>"
_EPOCH_S = 1_767_225_600
"""2026-01-01 UTC: child number n was committed n seconds later."""
_TIMEOUT_S = 120
_CLOCK_NS = 10**9
"""More than any file system's clock is coarse."""
_LOCK_PATIENCE_S = 2.0
"""How long a git that outlived its driver may still hold a lock file."""
_MAX_BUNDLE_BYTES = 256 << 20
_MAX_OBJECT_BYTES = 64 << 20
_OPTIONS = (
    *(
        "core.fsmonitor=false",
        "core.hooksPath=/dev/null",
        "core.attributesFile=/dev/null",
        "core.excludesFile=/dev/null",
    ),
    *("protocol.allow=never", "gc.auto=0", "maintenance.auto=false", "merge.renormalize=false", "diff.external="),
    *("core.quotePath=true", "core.logAllRefUpdates=false", "core.symlinks=true", "core.commitGraph=false"),
)
_KINDS = {"commit": 1, "tree": 2, "blob": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit and its tree, as 40 hexadecimal digits each."""

    sha: str
    tree: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A merge that git could not do: the paths that both sides changed."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of a candidate's history."""

    sha: str
    parents: tuple[str, ...]
    subject: str


class Repository:
    """A bare git repository. Any number of processes may read and write objects; one writes refs."""

    def __init__(self, path: Path, durable: bool = True, disk: Disk | None = None) -> None:
        """Use `create`, `open` or `cache`."""
        self._path, self._durable, self._disk = path, durable, disk or Disk()
        self._synced: dict[Path, int] = {}
        """Folders of objects that this process has synced → their time of change then."""

    @classmethod
    def create(cls, path: Path, durable: bool = True) -> Repository:
        """A new repository; `durable`: objects and refs are on stable storage when a call returns."""
        _require_version()
        path.parent.mkdir(parents=True, exist_ok=True)
        _git(None, "init", "--bare", "-q", "--object-format=sha1", "--template=", "--initial-branch=none", str(path))
        for folder in ("refs/candidates", "refs/baselines"):
            (path / folder).mkdir(parents=True, exist_ok=True)
        repository = cls(path, durable)
        repository._sync_folders(path.parent, path, path / "refs", path / "objects")
        return repository

    @classmethod
    def open(cls, path: Path, durable: bool = True, disk: Disk | None = None) -> Repository:
        """An existing one; `disk` is the seam for tests.

        Raises:
            RepositoryError: there is none.
        """
        _require_version()
        if not (path / "HEAD").is_file() or not (path / "objects").is_dir():
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

    # --- objects ------------------------------------------------------------------------------------------------------

    def has(self, sha: str) -> bool:
        """Whether the commit and its tree are here."""
        with self._objects() as read:
            return read(f"{_sha(sha)}^{{tree}}") is not None

    def tree_of(self, sha: str) -> str:
        """The tree of a commit."""
        with self._objects() as read:
            return _tree_line(_present(read(_sha(sha)), sha))

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
        tree = objects[-1].sha
        commit = _commit_object(tree, parents, message, number)
        self._unpack(_pack([*objects, commit]))
        return Commit(sha=commit.sha, tree=tree)

    def export(self, sha: str, folder: Path) -> None:
        """Write a commit's files into an empty folder (made if missing). Nothing is executed or converted.

        Raises:
            TreeRefused: the commit holds what no candidate may have.
        """
        entries = self._entries(sha)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RepositoryError(f"{folder}: expected an empty folder to export {sha[:12]} into")
        try:
            write_folder(entries, folder)
        except OSError as error:
            raise InfrastructureError(f"{folder}: cannot export {sha[:12]}: {error.strerror}") from error

    def read_files(self, sha: str, pattern: str = "*") -> dict[str, str]:
        """Path → text of the files whose path matches the shell pattern (`*` crosses folders), without links."""
        entries = self._entries(sha, lambda path: fnmatch.fnmatchcase(path, pattern))
        return {path: e.data.decode("utf-8", errors="replace") for path, e in entries.items() if e.mode != "120000"}

    def merge(self, ours: str, theirs: str, *, message: str, number: int) -> Commit | Conflict:
        """Three-way merge of two commits from their common ancestor, without a work tree.

        Raises:
            TreeRefused: the result may not be a candidate.
        """
        args = ("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", _sha(ours), _sha(theirs))
        done = self._run(*args, allowed=(0, 1))
        tree, *paths = done.stdout.decode("utf-8", errors="replace").rstrip("\0").split("\0")
        if done.returncode == 1:
            return Conflict(paths=tuple(dict.fromkeys(path for path in paths if path)))
        commit = _commit_object(_sha(tree.strip()), (ours, theirs), message, number)
        self._unpack(_pack([commit]))
        self._entries(commit.sha)
        return Commit(sha=commit.sha, tree=tree.strip())

    # --- travelling ---------------------------------------------------------------------------------------------------

    def bundle(self, *shas: str, have: Sequence[str]) -> bytes:
        """The commits with their history as a git bundle, on top of what the receiver has; b"" if it has all."""
        wanted = [_sha(sha) for sha in shas if sha not in have]
        if not wanted:
            return b""
        revisions = "".join(f"{sha}\n" for sha in wanted) + "".join(f"^{_sha(sha)}\n" for sha in have)
        pack = self._run("pack-objects", "--revs", "--thin", "--stdout", "-q", data=revisions.encode("ascii")).stdout
        header = "# v2 git bundle\n" + "".join(f"-{sha} \n" for sha in have)
        header += "".join(f"{sha} refs/commits/{sha}\n" for sha in wanted)
        return header.encode("ascii") + b"\n" + pack

    def unbundle(self, bundle: bytes) -> tuple[str, ...]:
        """Take in a bundle's objects; returns its commits. b"" is an empty bundle.

        Raises:
            RepositoryError: not a bundle, or it builds on commits that are not here.
        """
        if not bundle:
            return ()
        header, found, pack = bundle.partition(b"\n\n")
        lines = header.decode("ascii", errors="replace").split("\n")
        if not found or lines[0] != "# v2 git bundle" or len(bundle) > _MAX_BUNDLE_BYTES:
            raise RepositoryError(f"expected a git bundle of at most {_MAX_BUNDLE_BYTES} bytes, got {bundle[:30]!r}")
        needs = [_sha(line[1:41]) for line in lines[1:] if line.startswith("-")]
        missing = [sha for sha in needs if not self.has(sha)]
        if missing:
            raise RepositoryError(
                f"{self._path}: the bundle builds on {', '.join(missing)}, expected to be here already"
            )
        self._unpack(pack)
        return tuple(_sha(line[:40]) for line in lines[1:] if not line.startswith("-"))

    # --- refs ---------------------------------------------------------------------------------------------------------

    def set_ref(self, candidate: str, sha: str) -> None:
        """Keep a commit as refs/candidates/<id>; one that never got into the ledger is replaced."""
        self._set(f"refs/candidates/{_matching(_CANDIDATE, candidate, 'a candidate id such as c000012')}", sha)

    def ref(self, candidate: str) -> str:
        """The commit of refs/candidates/<id>."""
        return self._get(f"refs/candidates/{_matching(_CANDIDATE, candidate, 'a candidate id such as c000012')}")

    def set_baseline(self, name: str, sha: str) -> None:
        """Keep a commit as refs/baselines/<name>."""
        self._set(f"refs/baselines/{_matching(_BASELINE, name, 'a name of letters, digits, - and _')}", sha)

    def baseline(self, name: str) -> str:
        """The commit of refs/baselines/<name>."""
        return self._get(f"refs/baselines/{_matching(_BASELINE, name, 'a name of letters, digits, - and _')}")

    def recover(self, commits: Mapping[str, str]) -> None:
        """For the driver alone: put right what a killed driver, its git, or one that was replaced has left behind.

        Lock files of processes that are gone are removed. `commits` says what the ledger has (candidate id → commit);
        a ref that is missing or differs is set again.

        Raises:
            RepositoryError: a commit that the ledger names is not here.
        """
        self._break_locks()
        listed = self._run("for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/candidates").stdout
        refs = {name: sha for sha, name in (line.split() for line in listed.decode("ascii").splitlines())}
        for candidate, sha in commits.items():
            if refs.get(candidate) != sha:
                if not self.has(sha):
                    raise RepositoryError(f"{self._path}: expected commit {sha} of {candidate}, found none; restore it")
                self.set_ref(candidate, sha)

    def _break_locks(self) -> None:
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        for lock in [*self._path.glob("*.lock"), *(self._path / "refs").rglob("*.lock")]:
            while lock.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            lock.unlink(missing_ok=True)

    def _set(self, ref: str, sha: str) -> None:
        self._run("update-ref", ref, _sha(sha))
        self._sync_folders(self._path / Path(ref).parent)

    def _get(self, ref: str) -> str:
        done = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", ref, allowed=(0, 1))
        if done.returncode:
            raise RepositoryError(f"{self._path}: expected {ref}, found none")
        return _sha(done.stdout.decode("ascii").strip())

    # --- reading for people -------------------------------------------------------------------------------------------

    def diff(self, a: str, b: str, paths: Sequence[str] = ()) -> str:
        """Unified diff from one commit to another. It is a candidate's text: escape it before it goes to a terminal."""
        args = ("diff-tree", "-r", "-p", "--no-color", "--no-ext-diff", "--no-textconv", "-M", _sha(a), _sha(b), "--")
        return self._run(*args, *paths).stdout.decode("utf-8", errors="replace")

    def log(self, sha: str, limit: int = 100) -> tuple[LogEntry, ...]:
        """A commit and its ancestors, newest first."""
        args = (
            "log",
            "-z",
            "--no-show-signature",
            "--no-color",
            "--format=%H%n%P%n%s",
            f"-n{int(limit)}",
            _sha(sha),
            "--",
        )
        records = self._run(*args).stdout.decode("utf-8", errors="replace").split("\0")
        rows = (record.strip("\n").split("\n", 2) for record in records if record.strip())
        return tuple(LogEntry(sha=h, parents=tuple(p.split()), subject=s) for h, p, s in rows)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _entries(self, sha: str, wanted: Callable[[str], bool] = lambda path: True) -> dict[str, Entry]:
        """The checked files of a commit."""
        entries: dict[str, Entry] = {}
        with self._objects() as read:
            waiting = [("", f"{_sha(sha)}^{{tree}}")]
            while waiting:
                prefix, tree = waiting.pop()
                for mode, name, child in parse_tree(_present(read(tree), sha)):
                    path = prefix + name
                    if mode == "40000":
                        waiting.append((path + "/", child))
                    elif mode not in ("100644", "100755", "120000"):
                        raise TreeRefused([f"{path!a}: expected files and links, got mode {mode} (a submodule?)"])
                    elif wanted(path):
                        entries[path] = Entry(mode, _present(read(child), sha))  # type: ignore[arg-type]  # checked above
        check_entries(entries)
        return dict(sorted(entries.items()))

    @contextmanager
    def _objects(self) -> Iterator[Callable[[str], bytes | None]]:
        """A function from object names to contents, None for what is missing; one process for all of them."""
        command = _command(self._path, self._durable, "cat-file", "--batch")
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            cwd="/",
        )
        assert process.stdin is not None and process.stdout is not None
        source, sink = process.stdin, process.stdout

        def read(name: str) -> bytes | None:
            try:
                source.write(name.encode("ascii") + b"\n")
                source.flush()
                words = sink.readline().split()
                if not words:
                    raise RepositoryError(
                        f"{self._path}: git cat-file ended while reading {name}; is the repository damaged?"
                    )
            except BrokenPipeError:
                raise RepositoryError(f"{self._path}: git cat-file ended before {name} could be read") from None
            if len(words) != 3:
                return None
            if int(words[2]) > _MAX_OBJECT_BYTES:
                raise TreeRefused([f"{name}: expected at most {_MAX_OBJECT_BYTES} bytes, got {int(words[2])}"])
            return sink.read(int(words[2]) + 1)[:-1]

        try:
            yield read
        finally:
            source.close()
            sink.close()
            process.wait(_TIMEOUT_S)

    def _unpack(self, pack: bytes) -> None:
        """Write a pack's objects as loose ones, content and links verified, and make them durable.

        What is here already may have been left unsynced by a process that was killed, so at first every folder is due.
        """
        self._run("unpack-objects", "-q", "--strict", f"--max-input-size={_MAX_BUNDLE_BYTES}", data=pack)
        if self._durable:
            found = self._fan_out()
            self._sync_folders(*(path for path, at in found.items() if self._synced.get(path) != at))
            self._sync_folders(self._path / "objects")
            settled_ns = time.time_ns() - _CLOCK_NS  # a later change could still fall on the same tick
            self._synced = {path: at for path, at in found.items() if at < settled_ns}

    def _fan_out(self) -> dict[Path, int]:
        with os.scandir(self._path / "objects") as found:
            return {Path(e.path): e.stat().st_mtime_ns for e in found if len(e.name) == 2}

    def _sync_folders(self, *folders: Path) -> None:
        """Git syncs the files it writes but not the folders that name them."""
        if not self._durable:
            return
        for folder in folders:
            try:
                self._disk.sync_folder(folder)
            except OSError as error:
                raise InfrastructureError(f"{folder}: cannot be made durable: {error.strerror}") from error

    def _run(
        self, *args: str, data: bytes = b"", allowed: tuple[int, ...] = (0,)
    ) -> subprocess.CompletedProcess[bytes]:
        return _git(self._path, *args, data=data, allowed=allowed, durable=self._durable)


def _git(
    path: Path | None, *args: str, data: bytes = b"", allowed: tuple[int, ...] = (0,), durable: bool = True
) -> subprocess.CompletedProcess[bytes]:
    command = _command(path, durable, *args)
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, env=_environment(), cwd="/", timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise InfrastructureError(
            f"git {args[0]} on {path}: expected an end within {_TIMEOUT_S} s; is the disk slow?"
        ) from None
    if done.returncode not in allowed:
        said = done.stderr.decode("utf-8", errors="replace").strip()[-1000:]
        if os.strerror(errno.ENOSPC) in said or os.strerror(errno.EDQUOT) in said:
            raise InfrastructureError(f"{path}: the disk is full: free some space, then resume ({said})")
        raise RepositoryError(
            f"git {args[0]} on {path}: expected exit status 0, got {done.returncode}: {said or 'no message'}"
        )
    return done


def _command(path: Path | None, durable: bool, *args: str) -> list[str]:
    options = [word for option in (*_OPTIONS, f"core.fsync={'all' if durable else 'none'}") for word in ("-c", option)]
    place = [] if path is None else [f"--git-dir={path.absolute()}"]
    return [_executable(), "--literal-pathspecs", "--no-replace-objects", "--no-pager", *options, *place, *args]


def _environment() -> dict[str, str]:
    """All that git gets to see."""
    return {
        "PATH": os.defpath,
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_GRAFT_FILE": os.devnull,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }


@cache
def _executable() -> str:
    found = shutil.which("git")
    if found is None:
        raise RepositoryError("expected git ≥ 2.38 on PATH, found none; install git")
    return found


@cache
def _require_version() -> None:
    said = _git(None, "version").stdout.decode("ascii", errors="replace").strip()
    match = re.search(r"(\d+)\.(\d+)", said)
    if match is None or (int(match[1]), int(match[2])) < (2, 38):
        raise RepositoryError(
            f"expected git ≥ 2.38 (merge-tree --write-tree), got '{said}' at {_executable()}; update git"
        )


def _commit_object(tree: str, parents: Sequence[str], message: str, number: int) -> GitObject:
    who = f"{_IDENTITY} {_EPOCH_S + number} +0000"
    lines = [f"tree {tree}", *(f"parent {_sha(parent)}" for parent in parents), f"author {who}", f"committer {who}"]
    text = message.replace("\0", " ").strip() or f"child {number}"
    return GitObject("commit", ("\n".join(lines) + f"\n\n{text}\n").encode("utf-8", errors="replace"))


def _pack(objects: Sequence[GitObject]) -> bytes:
    """A pack file, version 2, of whole objects."""
    unique = {o.sha: o for o in objects}.values()
    parts = [b"PACK", (2).to_bytes(4), len(unique).to_bytes(4)]
    for item in unique:
        size = len(item.data)
        first, size = (_KINDS[item.kind] << 4) | (size & 15), size >> 4
        head = bytearray()
        while size:
            head.append(first | 0x80)
            first, size = size & 0x7F, size >> 7
        head.append(first)
        parts += [bytes(head), zlib.compress(item.data, 1)]
    body = b"".join(parts)
    return body + hashlib.sha1(body, usedforsecurity=False).digest()


def _tree_line(commit: bytes) -> str:
    return _sha(commit[5:45].decode("ascii", errors="replace"))


def _present(data: bytes | None, sha: str) -> bytes:
    if data is None:
        raise RepositoryError(f"expected commit {sha} and all its files in the repository, but some are missing")
    return data


def _sha(text: str) -> str:
    return _matching(_SHA, text, "a commit as 40 hexadecimal digits")


def _matching(pattern: re.Pattern[str], text: str, what: str) -> str:
    if pattern.fullmatch(text) is None:
        raise RepositoryError(f"expected {what}, got {text[:80]!r}")
    return text
