"""Decides what git itself is asked: merges, and what people want to see of commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from population.git import run_git
from population.git_objects import require_sha


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A merge that git could not do."""

    tree: str
    """What git left of it, with conflict markers."""
    paths: tuple[str, ...]
    """Where both sides changed the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of a candidate's history."""

    sha: str
    parents: tuple[str, ...]
    subject: str


def merged_tree(path: Path, ours: str, theirs: str, durable: bool) -> str | Conflict:
    """The tree of a three-way merge from the common ancestor, whose objects git has written."""
    args = ("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", ours, theirs)
    status, said = run_git(path, *args, allowed=(0, 1), durable=durable)
    tree, *paths = said.decode("utf-8", errors="replace").rstrip("\0").split("\0")
    if status == 1:
        return Conflict(tree=require_sha(tree.strip()), paths=tuple(dict.fromkeys(path for path in paths if path)))
    return require_sha(tree.strip())


def merge_base(path: Path, ours: str, theirs: str) -> str:
    """The last commit that both have in their history."""
    return require_sha(run_git(path, "merge-base", ours, theirs)[1].decode("ascii").strip())


def diff(path: Path, a: str, b: str, paths: Sequence[str]) -> str:
    """Unified diff from one commit to another."""
    args = ("diff-tree", "-r", "-p", "--no-color", "--no-ext-diff", "--no-textconv", "-M", a, b, "--")
    return run_git(path, *args, *paths)[1].decode("utf-8", errors="replace")


def log(path: Path, sha: str, limit: int) -> tuple[LogEntry, ...]:
    """A commit and its ancestors, newest first."""
    shown = ("--no-show-signature", "--no-color", "--format=%H%n%P%n%s", f"-n{int(limit)}")
    records = run_git(path, "log", "-z", *shown, sha, "--")[1].decode("utf-8", errors="replace").split("\0")
    rows = (record.strip("\n").split("\n", 2) for record in records if record.strip())
    return tuple(LogEntry(sha=h, parents=tuple(p.split()), subject=s) for h, p, s in rows)
