"""Decides whether files would make git, editors or shells act when somebody works with the tree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from evaluators.inspection.finding import Rule, Spot
from evaluators.inspection.tree import SourceTree

_GIT_FILES = frozenset(
    {".gitattributes", ".gitconfig", ".lfsconfig", ".git-blame-ignore-revs", ".mailmap", "config.worktree"}
)
_ACTING = frozenset(
    {".envrc", ".env", ".bashrc", ".profile", ".zshrc", ".inputrc", ".netrc", ".npmrc", ".pypirc", ".pdbrc", ".gdbinit"}
    | {".vimrc", ".exrc", ".dir-locals.el", ".pre-commit-config.yaml", ".pythonrc.py", "pip.conf", ".wgetrc", ".curlrc"}
)
_ACTING_FOLDERS = frozenset(
    {".vscode", ".idea", ".github", ".gitlab", ".devcontainer", ".husky", ".claude", ".cursor", ".codex", ".gemini"}
)
_AGENT_FILES = frozenset({"AGENTS.md", "CLAUDE.md", "GEMINI.md", ".cursorrules", ".mcp.json", ".windsurfrules"})


def _git(tree: SourceTree) -> Iterator[Spot]:
    for path in tree.files:
        place = PurePosixPath(path)
        if place.name in _GIT_FILES or "hooks" in place.parts[:-1]:
            yield Spot(path, 0, "git obeys this file once the tree is part of a repository")
        elif place.name == "HEAD" and any(other.startswith(path[: -len("HEAD")] + "objects/") for other in tree.files):
            yield Spot(path, 0, "a folder that git takes for a repository")


def _acting(tree: SourceTree) -> Iterator[Spot]:
    for path in tree.files:
        place = PurePosixPath(path)
        if place.name in _ACTING | _AGENT_FILES or any(part in _ACTING_FOLDERS for part in place.parts[:-1]):
            yield Spot(path, 0, "tools and agents obey this file by its name; a server does not need it")


RULES = (
    Rule(id="git-file", why="Attributes, hooks and configuration make git run programs.", look=_git),
    Rule(id="tool-file", why="Files that tools obey by their names act on whoever opens the tree.", look=_acting),
)
