"""Decides which files may become part of a candidate.

The folder of a candidate is untrusted: nothing in it is executed, followed or obeyed. It is read file by file, each
opened without following links; names, kinds and sizes are checked, and the same checks apply to what comes back out
of a repository.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from population.errors import RepositoryError
from population.git_objects import FILE_MODES, Entry, GitObject, Row, parse_tree, sort_key

SKIPPED = frozenset({"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".home"})
"""Folders that running a server leaves behind; they do not become part of a candidate."""
_MAX_FILES = 2_000
_MAX_FILE_BYTES = 8 << 20
_MAX_TREE_BYTES = 64 << 20
_MAX_DEPTH = 16
_MAX_NAME_BYTES = 200
_SHOWN = 10
_LINK = re.compile(r"(?:\.\./)*(?!\.\.?(?:/|$))[^/]+(?:/(?!\.\.?(?:/|$))[^/]+)*")
"""Any number of steps up, then names only: a path that cannot leave through a link that it passes."""


class TreeRefused(RepositoryError):
    """A tree that no candidate may have; `problems` holds one sentence each. The candidate's fault, not ours."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
        super().__init__("the tree was refused: " + "; ".join(problems[:_SHOWN]) + more)


def read_folder(folder: Path) -> dict[str, Entry]:
    """Path → entry of every file below an untrusted folder; empty folders vanish, as git has none.

    Raises:
        TreeRefused: with every problem.
        OSError: the folder itself cannot be read.
    """
    scan = _Scan()
    scan.folder(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), "")
    check_entries(scan.entries, scan.problems)
    return scan.entries


class _Scan:
    """A walk that never follows a link, not even one that is swapped in meanwhile."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.problems: list[str] = []
        self._bytes = 0

    def folder(self, fd: int, prefix: str) -> None:
        try:
            with os.scandir(fd) as found:
                names = sorted(entry.name for entry in found)
            for name in names:
                if len(self.entries) > _MAX_FILES or self._bytes > _MAX_TREE_BYTES:
                    return
                self._one(fd, name, prefix + name)
        finally:
            os.close(fd)

    def _one(self, parent: int, name: str, path: str) -> None:
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                self._folder_in(parent, name, path)
            elif stat.S_ISLNK(status.st_mode):
                self.entries[path] = Entry("120000", os.fsencode(os.readlink(name, dir_fd=parent)))
            elif not stat.S_ISREG(status.st_mode):
                self.problems.append(f"{_shown(path)}: expected files, folders and links, got a device, pipe or socket")
            else:
                self._file(parent, name, path, status)
        except OSError as error:
            self.problems.append(f"{_shown(path)}: cannot be read: {error.strerror}")

    def _folder_in(self, parent: int, name: str, path: str) -> None:
        if name in SKIPPED:
            return
        if is_git(name) or path.count("/") >= _MAX_DEPTH:
            self.entries[path] = Entry("100644", b"")  # the checks of its name say why it is refused
            return
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self.folder(os.open(name, flags, dir_fd=parent), path + "/")

    def _file(self, parent: int, name: str, path: str, status: os.stat_result) -> None:
        if name.endswith(".pyc"):
            return
        if status.st_nlink > 1:
            self.problems.append(f"{_shown(path)}: expected a file of its own, got a hard link")
        elif status.st_size > _MAX_FILE_BYTES:
            self.problems.append(f"{_shown(path)}: expected at most {_MAX_FILE_BYTES} bytes, got {status.st_size}")
        else:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
            with os.fdopen(fd, "rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
            self._bytes += len(data)
            self.entries[path] = Entry("100755" if status.st_mode & stat.S_IXUSR else "100644", data)


def check_entries(entries: Mapping[str, Entry], problems: list[str] | None = None) -> None:
    """Refuse names, links and sizes that a candidate may not have.

    Raises:
        TreeRefused: with every problem, those given among them.
    """
    problems = list(problems or ())
    folded: dict[str, str] = {}
    for path, entry in entries.items():
        problems += [f"{_shown(path)}: {problem}" for problem in _problems(path, entry)]
        twin = folded.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
        if twin != path:
            problems.append(f"{_shown(path)}: differs from {_shown(twin)} in case or spelling only")
    if len(entries) > _MAX_FILES:
        problems.append(f"expected at most {_MAX_FILES} files")
    if (size := sum(len(entry.data) for entry in entries.values())) > _MAX_TREE_BYTES:
        problems.append(f"expected at most {_MAX_TREE_BYTES} bytes in all, got {size}")
    if problems:
        raise TreeRefused(problems)


def _problems(path: str, entry: Entry) -> Iterator[str]:
    names = path.split("/")
    if len(names) > _MAX_DEPTH:
        yield f"expected at most {_MAX_DEPTH} levels of folders"
    for name in names:
        if problem := _name_problem(name):
            yield problem
            return
    if len(entry.data) > _MAX_FILE_BYTES:
        yield f"expected at most {_MAX_FILE_BYTES} bytes, got {len(entry.data)}"
    if entry.mode == "120000" and (problem := _link_problem(path, entry.data)):
        yield problem


@lru_cache(maxsize=1 << 14)
def _name_problem(name: str) -> str | None:
    if name in ("", ".", ".."):
        return f"expected a name, got {name!r}"
    if is_git(name):
        return "git's own folders and files (.git, .gitmodules) may not be part of a candidate"
    if name.startswith("-") or name != name.strip(" ") or name.endswith("."):
        return "names may not begin with '-' or a space, nor end with a space or a dot"
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        return "names must be valid UTF-8"
    if "\\" in name or any(unicodedata.category(c)[0] == "C" for c in name):
        return "names may not hold control or invisible characters or backslashes"
    return f"names may have at most {_MAX_NAME_BYTES} bytes" if len(encoded) > _MAX_NAME_BYTES else None


def is_git(name: str) -> bool:
    """Whether some file system takes the name for `.git` or `.gitmodules` (case, NTFS short names and streams)."""
    visible = "".join(c for c in name if unicodedata.category(c) != "Cf").casefold()
    stem = visible.partition(":")[0].rstrip(". ")
    return stem in (".git", ".gitmodules") or re.fullmatch(r"git~\d|gitmod~\d|gi7eba~\d", stem) is not None


def _link_problem(path: str, data: bytes) -> str | None:
    try:
        target = data.decode("utf-8")
    except UnicodeDecodeError:
        return "a link's target must be valid UTF-8"
    ups = target.count("../")
    if _LINK.fullmatch(target) is None or ups > path.count("/"):
        return f"a link may only lead to a file or folder inside the tree, got {_shown(target[:100])}"
    if any(_name_problem(name) for name in target.split("/")[ups:]):
        return f"a link's target is no name that a candidate may have: {_shown(target[:100])}"
    return None


def check_rows(rows: Iterable[Row]) -> None:
    """Refuse the rows of a tree object that no candidate may have, or that git would not have written.

    Raises:
        TreeRefused: with every problem.
    """
    problems, before = list[str](), b""
    for row in rows:
        if problem := "expected a name, got a path" if "/" in row.name else _name_problem(row.name):
            problems.append(f"{_shown(row.name)}: {problem}")
        if not row.is_folder and row.mode not in FILE_MODES:
            problems.append(
                f"{_shown(row.name)}: expected files, folders and links, got mode {row.mode} (a submodule?)"
            )
        if before and sort_key(row) <= before:
            problems.append(f"{_shown(row.name)}: expected every name once, in git's order")
        before = sort_key(row)
    if problems:
        raise TreeRefused(problems)


def commit_entries(
    tree: str, read: Callable[[str], GitObject], wanted: Callable[[str], bool] = lambda path: True
) -> dict[str, Entry]:
    """The files of a tree object whose paths are wanted, checked: path → entry, sorted.

    Raises:
        TreeRefused: what no candidate may have.
    """
    entries: dict[str, Entry] = {}
    waiting = [("", tree)]
    while waiting:
        prefix, sha = waiting.pop()
        for row in parse_tree(read(sha).data):
            path = prefix + row.name
            if row.is_folder:
                if path.count("/") >= _MAX_DEPTH:
                    raise TreeRefused([f"{_shown(path)}: expected at most {_MAX_DEPTH} levels of folders"])
                waiting.append((path + "/", row.sha))
            elif row.mode not in FILE_MODES:
                raise TreeRefused([f"{_shown(path)}: expected files and links, got mode {row.mode} (a submodule?)"])
            elif wanted(path):
                entries[path] = Entry(row.mode, read(row.sha).data)
    check_entries(entries)
    return dict(sorted(entries.items()))


def write_folder(entries: Mapping[str, Entry], folder: Path) -> None:
    """Write checked entries into an empty folder; links last, so that no file is ever written through one."""
    made = {folder}
    for path, entry in sorted(entries.items(), key=lambda item: item[1].mode == "120000"):
        place = folder / path
        if place.parent not in made:
            place.parent.mkdir(parents=True, exist_ok=True)
            made.add(place.parent)
        if entry.mode == "120000":
            os.symlink(os.fsdecode(entry.data), place)
            continue
        mode = 0o755 if entry.mode == "100755" else 0o644
        fd = os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(entry.data)


def _shown(text: str) -> str:
    return ascii(text)
