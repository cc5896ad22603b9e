"""Decides which paths a model may name: those of regular files below its workspace, however links lead.

No process of the model's runs between two calls (`shell.py`), so what is checked here does not change under our hands.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from vibeserve.agents.tools.tool import ToolProblem

_SKIPPED = frozenset({".git", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"})


LARGEST_FILE, LARGEST_TREE = 8 << 20, 64 << 20
"""Bytes; of candidates, see `population/trees.py`."""


class Workspace:
    """The folder that a model works in."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def path(self, name: str) -> Path:
        """Where `name` leads, which may not exist yet.

        Raises:
            ToolProblem: outside of the workspace.
        """
        if "\0" in name:
            raise ToolProblem("expected a path without NUL characters")
        try:
            found = (self.root / name).resolve()
        except (OSError, RuntimeError) as error:
            raise ToolProblem(f"{name}: {error}") from None
        if not found.is_relative_to(self.root):
            raise ToolProblem(f"{name}: expected a path inside the workspace {self.root}")
        return found

    def file(self, name: str) -> Path:
        """A regular file.

        Raises:
            ToolProblem: there is none at that path, or it is outside.
        """
        found = self.path(name)
        try:
            mode = found.stat().st_mode
        except OSError as error:
            raise ToolProblem(f"{name}: {error.strerror}") from None
        if not stat.S_ISREG(mode):
            raise ToolProblem(f"{name}: expected a regular file, got {'a folder' if stat.S_ISDIR(mode) else 'no file'}")
        return found

    def text(self, name: str) -> str:
        """The text of a file.

        Raises:
            ToolProblem: there is none, or it is binary, or too large.
        """
        path = self.file(name)
        if path.stat().st_size > LARGEST_FILE:
            raise ToolProblem(f"{name}: expected at most {LARGEST_FILE >> 20} MiB, got {path.stat().st_size} bytes")
        data = path.read_bytes()
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise ToolProblem(f"{name}: expected UTF-8 text, got {len(data)} bytes of something else") from None

    def write(self, name: str, text: str) -> None:
        """Make or replace a file, and the folders that it needs.

        Raises:
            ToolProblem: it is outside, or something else has that name.
        """
        place = self.path(name)
        if place.exists() and not place.is_file():
            raise ToolProblem(f"{name}: expected a file or nothing there, found something else")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text.encode())
        except (FileExistsError, NotADirectoryError):
            raise ToolProblem(f"{name}: a part of the path is a file") from None
        except UnicodeEncodeError:
            raise ToolProblem(f"{name}: expected text that can be written as UTF-8") from None

    def files(self) -> Iterator[str]:
        """Names of all regular files, relative, sorted; links and caches are left out."""
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(name for name in folders if name not in _SKIPPED)
            for name in sorted(names):
                path = Path(folder, name)
                if stat.S_ISREG(path.lstat().st_mode):
                    yield str(path.relative_to(self.root))

    def digests(self) -> dict[str, str]:
        """Name → what tells its contents from others, of every file, to see what was changed."""
        return {name: _digest(self.root / name) for name in self.files()}

    def find(self, wanted: Callable[[bytes], bool]) -> str | None:
        """The first file whose contents are `wanted`; those too large for a candidate are not looked into."""
        small = (name for name in self.files() if (self.root / name).stat().st_size <= LARGEST_FILE)
        return next((name for name in small if wanted((self.root / name).read_bytes())), None)

    def copy(self, place: Path) -> None:
        """Everything, to a folder that does not exist yet.

        Raises:
            ToolProblem: it is more than a candidate may be, or holds what cannot be copied.
        """
        size = sum((self.root / name).stat().st_size for name in self.files())
        if size > LARGEST_TREE:
            raise ToolProblem(f"the workspace has {size >> 20} MiB; a server may have {LARGEST_TREE >> 20}")
        try:
            shutil.copytree(self.root, place, symlinks=True, ignore=shutil.ignore_patterns(*_SKIPPED))
        except shutil.Error as error:
            problems = "; ".join(f"{Path(source).relative_to(self.root)}: {why}" for source, _, why in error.args[0])
            raise ToolProblem(f"the workspace cannot be copied: {problems}") from None


def _digest(path: Path) -> str:
    status = path.stat()
    if status.st_size > LARGEST_FILE:  # a model can make a file that is larger than our memory
        return f"{status.st_size} bytes, {status.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def matching(pattern: str) -> re.Pattern[str]:
    """What a glob pattern means for relative paths: `*` and `?` within a name, `**/` any folders."""
    out, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            out, at = out + "(?:[^/]+/)*", at + 3
        elif pattern.startswith("**", at):
            out, at = out + ".*", at + 2
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(pattern[at], re.escape(pattern[at]))
            at += 1
    return re.compile(out)
