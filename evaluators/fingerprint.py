"""Decides whether two targets are the same: a digest per part, so that a resume can say what was changed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from evaluators.target import Target
from population.errors import InfrastructureError

PARTS: Mapping[str, str] = {
    "objective": "OBJECTIVE.md",
    "objectives": "objectives.toml",
    "settings": "target.toml",
    "reference": "reference",
    "checker": "accuracy_checker",
    "benchmark": "benchmark",
    "seed": "seed",
}
"""Part → file or folder of a target."""
_IGNORED = frozenset({"__pycache__", ".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".DS_Store"})


def fingerprint(target: Target) -> dict[str, str]:
    """SHA-256 per part that exists; names, contents and executable bits count, times and owners do not."""
    paths = {part: target.folder / place for part, place in PARTS.items()}
    return {part: digest(path) for part, path in paths.items() if path.exists()}


def fingerprint_difference(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """One sentence per part that differs; empty if the targets measure the same."""
    sentences = []
    for part in sorted(before.keys() | after.keys()):
        old, new = before.get(part), after.get(part)
        if old != new:
            sentences.append(f"{part} ({PARTS.get(part, part)}): {_short(old)} before, {_short(new)} now")
    return sentences


def digest(path: Path) -> str:
    """SHA-256 of a file or a folder's whole tree."""
    total = hashlib.sha256()
    for file in files_below(path):
        name = str(file.relative_to(path)) if file != path else file.name
        executable = os.access(file, os.X_OK)
        total.update(f"{len(name)} {name} {executable:d} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def files_below(path: Path) -> Iterator[Path]:
    """Regular files at or below `path` in a fixed order, without caches and version control."""
    if path.is_file():
        yield path
        return
    for folder, names, files in os.walk(path):
        names[:] = sorted(name for name in names if name not in _IGNORED)
        yield from (
            Path(folder, name) for name in sorted(files) if name not in _IGNORED and Path(folder, name).is_file()
        )


def snapshot(target: Target, destination: Path) -> None:
    """Copy the target to `destination`, which must not exist, so that later edits cannot change what a run measures.

    Raises:
        InfrastructureError: the copy failed (disk full, not readable).
    """
    try:
        shutil.copytree(target.folder, destination, ignore=shutil.ignore_patterns(*_IGNORED))
    except (OSError, shutil.Error) as error:
        raise InfrastructureError(f"cannot copy the target {target.folder} to {destination}: {error}") from error


def _short(value: str | None) -> str:
    return value[:12] if value else "absent"
