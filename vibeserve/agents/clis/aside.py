"""Decides what of a tree no coding CLI gets to see: files from which it would take instructions, settings or tools.

A tree is what other models have written. CLIs read some names before anybody asks them to, and follow what they find.
Each can be told not to, in part, in its own way, until its next version; what is not there cannot be followed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDERS = frozenset({".agents", ".claude", ".codex", ".gemini", ".opencode", ".cursor", ".github", ".vscode"})
_FILES = frozenset({
    "agents.md", "agents.override.md", "claude.md", "claude.local.md", "gemini.md", "context.md", ".cursorrules",
    ".mcp.json", ".claude.json", "opencode.json", "opencode.jsonc", ".geminiignore", ".rgignore", ".ignore",
})  # fmt: skip


@contextmanager
def set_aside(tree: Path) -> Iterator[None]:
    """Without them while the block lasts. Then they are as they were, and what a CLI made by such names is gone."""
    with tempfile.TemporaryDirectory(prefix="vibeserve-aside-") as folder:
        kept = [(path, Path(folder, str(number))) for number, path in enumerate(_found(tree))]
        for path, place in kept:
            shutil.move(path, place)
        try:
            yield
        finally:
            for path in _found(tree):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            for path, place in kept:
                if path.parent.is_dir() and path.parent.resolve() == path.parent and not os.path.lexists(path):
                    shutil.move(place, path)


def _found(tree: Path) -> list[Path]:
    """At any depth; nothing within a folder that is found itself."""
    found: list[Path] = []
    for here, folders, files in os.walk(tree):
        named = [name for name in folders if name.lower() in _FOLDERS]
        links = [name for name in folders if name.lower() in _FILES]
        found += [Path(here, name) for name in (*named, *links, *(n for n in files if n.lower() in _FILES | _FOLDERS))]
        folders[:] = [name for name in folders if name not in (*named, *links)]
    return sorted(found)
