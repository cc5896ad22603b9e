"""The tools that run programs for a model, in the sandbox that candidates run in: bash and grep.

Each call is a sandbox of its own: no network, a clean environment, the workspace alone to write to. When it returns,
nothing of it runs any more.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

from pydantic import Field

from evaluators.process import Launch, NotExecutable, printable
from evaluators.sandbox import Sandbox, clean_environment
from population.errors import InfrastructureError
from vibeserve.agents.tools.tool import LONGEST_RESULT, Arguments, ToolProblem, bounded
from vibeserve.agents.tools.workspace import Workspace

_YIELDING = ("sh", "-c", '{ echo 19 >/proc/self/autogroup; } 2>/dev/null; exec nice -n 19 "$@"', "sh")
"""Evaluations may be measuring on the same machine. A sandbox is a session of its own, and where the kernel shares CPUs
between sessions first (sched_autogroup), niceness alone would yield to nobody outside it."""
_LOG_BYTES = 4 * LONGEST_RESULT
_GREP_S = 30.0
_MOST_MATCHES = 200


class Shell:
    """Runs one command after the other in the sandbox; keeps nothing between them but the workspace."""

    def __init__(self, workspace: Workspace, sandbox: Sandbox, readable: tuple[Path, ...] = ()) -> None:
        """`readable`: further folders that commands may read."""
        self._workspace, self._sandbox, self._readable = workspace, sandbox, readable

    def run(self, command: tuple[str, ...], timeout_s: float) -> tuple[int | None, str]:
        """Exit code (None: it was ended at its time limit) and output.

        Raises:
            InfrastructureError: the machine cannot isolate or start it.
        """
        with tempfile.TemporaryDirectory(prefix="vibeserve-shell-") as folder:
            home = Path(folder, "home")
            home.mkdir()
            launch = Launch(
                command=command,
                workspace=self._workspace.root,
                env=clean_environment(home),
                log=Path(folder, "log"),
                log_limit_bytes=_LOG_BYTES,
                writable=(self._workspace.root,),
                readable=self._readable,
            )
            try:
                with self._sandbox.launch(launch) as process:
                    code = process.wait(timeout_s)
            except NotExecutable as error:
                raise InfrastructureError(f"the sandbox has no {command[0]}: {error}") from error
            output = launch.log.read_bytes().decode(errors="replace") if launch.log.exists() else ""
        return code, bounded(printable(output))


class BashArguments(Arguments):
    command: str
    """A line of bash, or several."""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which it is ended; never more than the tool's own limit."""


class Bash:
    """Runs a command."""

    name = "bash"
    arguments = BashArguments

    def __init__(self, shell: Shell, limit_s: float) -> None:
        self._shell, self._limit_s = shell, limit_s
        self.description = (
            f"Run a bash command in the workspace: no network, no GPU, at most {limit_s:g} s. Each call is a fresh "
            "shell; what it leaves running is ended. Write to the workspace, or to $TMPDIR, which is emptied."
        )

    def call(self, given: BashArguments, deadline_s: float) -> str:
        limit_s = min(given.timeout_s or self._limit_s, self._limit_s, max(1.0, deadline_s - time.monotonic()))
        code, output = self._shell.run((*_YIELDING, "/bin/bash", "-c", given.command), limit_s)
        if code is None:
            raise ToolProblem(f"{output}\n[ended after {limit_s:g} s]")
        return f"{output}\n[exit code {code}]" if code else output or "[no output]"


class GrepArguments(Arguments):
    pattern: str
    """Extended regular expression."""
    path: str = "."
    """File or folder, relative to the workspace."""
    ignore_case: bool = False


class Grep:
    """Searches files; in the sandbox, because a hostile pattern can take for ever."""

    name = "grep"
    description = f"Search text files for an extended regular expression; at most {_MOST_MATCHES} matches per file."
    arguments = GrepArguments

    def __init__(self, shell: Shell, workspace: Workspace) -> None:
        self._shell, self._workspace = shell, workspace

    def call(self, given: GrepArguments, deadline_s: float) -> str:
        place = self._workspace.path(given.path)
        if not place.exists():
            raise ToolProblem(f"{given.path}: there is no such file or folder")
        options = ["-rnIE", f"--max-count={_MOST_MATCHES}", "--exclude-dir=__pycache__", *(["-i"] * given.ignore_case)]
        where = str(place.relative_to(self._workspace.root)) or "."
        limit_s = min(_GREP_S, max(1.0, deadline_s - time.monotonic()))
        code, output = self._shell.run(("grep", *options, "-e", given.pattern, "--", where), limit_s)
        if code is None:
            raise ToolProblem(f"the search was ended after {limit_s:g} s; simplify the pattern")
        if code > 1:
            raise ToolProblem(output)
        return output or f"no match for {given.pattern}"
