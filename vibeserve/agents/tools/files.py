"""The tools that read and change single files of the workspace: read, write, edit, glob."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

from pydantic import Field

from vibeserve.agents.tools.tool import AnyTool, Arguments, ToolProblem, bounded
from vibeserve.agents.tools.workspace import Workspace, matching

_MOST_FILES = 500
_LONGEST_FILE = 1_000_000
"""Characters that may be written at once."""


class ReadArguments(Arguments):
    path: str
    """Relative to the workspace."""
    first_line: Annotated[int, Field(ge=1)] = 1
    lines: Annotated[int, Field(ge=1)] = 1000


class Read:
    """Reads lines of a file."""

    name = "read"
    description = "Read lines of a text file. Each is preceded by its number and a tab."
    arguments = ReadArguments

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def call(self, given: ReadArguments, deadline_s: float) -> str:
        lines = self._workspace.text(given.path).splitlines()
        first = given.first_line - 1
        shown = lines[first : first + given.lines]
        if not shown:
            return f"{given.path} has {len(lines)} lines"
        numbered = "\n".join(f"{number}\t{line}" for number, line in enumerate(shown, given.first_line))
        left = len(lines) - first - len(shown)
        return bounded(numbered) + (f"\n[{left} more lines]" if left else "")


class WriteArguments(Arguments):
    path: str
    """Relative to the workspace."""
    content: Annotated[str, Field(max_length=_LONGEST_FILE)]
    """The whole new text."""


class Write:
    """Makes or replaces a file."""

    name = "write"
    description = "Write a whole text file; folders are made, an old file is replaced."
    arguments = WriteArguments

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def call(self, given: WriteArguments, deadline_s: float) -> str:
        self._workspace.write(given.path, given.content)
        return f"wrote {given.path}: {len(given.content.splitlines())} lines"


class EditArguments(Arguments):
    path: str
    """Relative to the workspace."""
    old: Annotated[str, Field(min_length=1)]
    """Text that occurs in the file, exactly, without line numbers."""
    new: str
    """What stands there afterwards."""
    everywhere: bool = False
    """Replace every occurrence; otherwise there must be exactly one."""


class Edit:
    """Replaces text within a file."""

    name = "edit"
    description = "Replace text in a file. The old text must occur exactly once, or say everywhere."
    arguments = EditArguments

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def call(self, given: EditArguments, deadline_s: float) -> str:
        text = self._workspace.text(given.path)
        count = text.count(given.old)
        if count == 0:
            raise ToolProblem(f"{given.path}: the old text does not occur; read the file again")
        if count > 1 and not given.everywhere:
            raise ToolProblem(f"{given.path}: the old text occurs {count} times; give more of its surroundings")
        changed = text.replace(given.old, given.new)
        if len(changed) > _LONGEST_FILE:
            raise ToolProblem(
                f"{given.path}: would have {len(changed)} characters, at most {_LONGEST_FILE} are allowed"
            )
        self._workspace.write(given.path, changed)
        return f"replaced {count} occurrence{'s' * (count > 1)} in {given.path}"


class GlobArguments(Arguments):
    pattern: str = "**"
    """Such as `**/*.py`; `**` alone lists everything."""


class Glob:
    """Lists files."""

    name = "glob"
    description = "List files of the workspace by a pattern relative to it, sorted."
    arguments = GlobArguments

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def call(self, given: GlobArguments, deadline_s: float) -> str:
        wanted = matching(given.pattern.removeprefix("./"))
        found = list(islice((name for name in self._workspace.files() if wanted.fullmatch(name)), _MOST_FILES + 1))
        more = f"\n[more than {_MOST_FILES}; give a narrower pattern]" if len(found) > _MOST_FILES else ""
        return "\n".join(found[:_MOST_FILES]) + more if found else f"no file matches {given.pattern}"


def file_tools(workspace: Workspace) -> tuple[AnyTool, ...]:
    """Those of this module."""
    return (Read(workspace), Write(workspace), Edit(workspace), Glob(workspace))
