"""Decides what git calls a file, a folder and a commit: objects named by their hashes, and how they are spelled.

Object formats: "Git Objects" in Pro Git. A commit's hash follows from its files, parents, message and child number.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from population.errors import RepositoryError

Kind = Literal["blob", "tree", "commit"]
Mode = Literal["100644", "100755", "120000"]
FOLDER_MODE = "40000"
FILE_MODES: tuple[Mode, ...] = ("100644", "100755", "120000")
_SHA = re.compile(r"[0-9a-f]{40}", re.ASCII)
_IDENTITY = "VibeServe <vibeserve@localhost>"
_EPOCH_S = 1_767_225_600
"""2026-01-01 UTC: child number n was committed n seconds later."""
_WHO = rb"[^\0\n<>]+ <[^\0\n<>]*> \d{1,12} [+-]\d{4}\n"
_COMMIT = re.compile(
    rb"tree (?P<tree>[0-9a-f]{40})\n(?P<parents>(?:parent [0-9a-f]{40}\n)*)"
    rb"author " + _WHO + rb"committer " + _WHO + rb"\n[^\0]*"
)


@dataclass(frozen=True, slots=True)
class GitObject:
    """An object by the hash of its kind and content."""

    kind: Kind
    data: bytes
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        header = f"{self.kind} {len(self.data)}\0".encode("ascii")
        object.__setattr__(self, "sha", hashlib.sha1(header + self.data, usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its mode as git writes it, and its content (of a symbolic link: the target)."""

    mode: Mode
    data: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a tree object."""

    mode: str
    name: str
    """Bytes that are no UTF-8 are kept as surrogates."""
    sha: str

    @property
    def is_folder(self) -> bool:
        return self.mode == FOLDER_MODE


def require_sha(text: str) -> str:
    """The hash itself.

    Raises:
        RepositoryError: it is none.
    """
    if _SHA.fullmatch(text) is None:
        raise RepositoryError(f"expected a commit as 40 hexadecimal digits, got {text[:80]!r}")
    return text


def tree_objects(entries: Mapping[str, Entry]) -> list[GitObject]:
    """Every blob and tree of the entries, children before parents; the last is the root tree."""
    objects: list[GitObject] = []
    _add_tree(dict(entries), objects)
    return objects


def _add_tree(entries: Mapping[str, Entry], objects: list[GitObject]) -> str:
    rows: list[tuple[bytes, bytes]] = []
    folders: dict[str, dict[str, Entry]] = {}
    for path, entry in entries.items():
        name, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(name, {})[rest] = entry
            continue
        blob = GitObject("blob", entry.data)
        objects.append(blob)
        rows.append((name.encode(), _row(entry.mode, name, blob.sha)))
    for name, inside in folders.items():
        rows.append((name.encode() + b"/", _row(FOLDER_MODE, name, _add_tree(inside, objects))))
    tree = GitObject("tree", b"".join(row for _, row in sorted(rows)))  # git sorts folders as if they ended in a slash
    objects.append(tree)
    return tree.sha


def _row(mode: str, name: str, sha: str) -> bytes:
    return f"{mode} {name}\0".encode() + bytes.fromhex(sha)


def parse_tree(data: bytes) -> Iterator[Row]:
    """The rows of a tree object.

    Raises:
        RepositoryError: it is none.
    """
    start = 0
    while start < len(data):
        end = data.find(b"\0", start)
        mode, space, name = data[start:end].partition(b" ")
        if end < 0 or not space or len(data) < end + 21:
            raise RepositoryError(f"expected a row of a git tree at byte {start}, got {data[start : start + 30]!r}")
        shown = name.decode("utf-8", errors="surrogateescape")
        yield Row(mode.decode("ascii", errors="replace"), shown, data[end + 1 : end + 21].hex())
        start = end + 21


def sort_key(row: Row) -> bytes:
    """What git sorts the rows of a tree by."""
    return row.name.encode("utf-8", errors="surrogateescape") + (b"/" if row.is_folder else b"")


def commit_object(tree: str, parents: Sequence[str], message: str, number: int) -> GitObject:
    """The commit of child `number`."""
    who = f"{_IDENTITY} {_EPOCH_S + number} +0000"
    lines = [f"tree {tree}", *(f"parent {require_sha(p)}" for p in parents), f"author {who}", f"committer {who}"]
    text = message.replace("\0", " ").strip() or f"child {number}"
    return GitObject("commit", ("\n".join(lines) + f"\n\n{text}\n").encode("utf-8", errors="replace"))


def parse_commit(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Tree and parents of a commit object.

    Raises:
        RepositoryError: it is none.
    """
    match = _COMMIT.fullmatch(data)
    if match is None:
        raise RepositoryError(f"expected a git commit with tree, parents, author and committer, got {data[:60]!r}")
    return match["tree"].decode("ascii"), tuple(match["parents"].decode("ascii").split()[1::2])
