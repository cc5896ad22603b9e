"""Decides how the target's trusted commands (checker, score, benchmark, build) run: isolated, with a deadline."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from evaluators.pod import Pod
from evaluators.process import Launch, NotExecutable, RunningProcess, printable
from evaluators.sandbox import clean_environment
from evaluators.server import fill
from population.errors import InfrastructureError

EVIDENCE_CHARACTERS = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedCommand:
    """A command of the target; it runs in the target folder with a clean environment, Python scripts as `python -I`."""

    table: str
    """The table of target.toml it comes from, for messages."""
    command: tuple[str, ...]
    folder: Path
    timeout_s: float
    log: Path
    home: Path
    cpus: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()
    pod: Pod | None = None
    """The network that it joins: that of the server it asks."""
    hidden: tuple[Path, ...] = ()
    """Folders that are empty for it: the candidate's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a trusted command ended; `code` None: it was stopped at its deadline."""

    code: int | None
    output: str
    """The end of its stdout and stderr, at most 4,000 characters."""


def run_trusted(command: TrustedCommand, words: dict[str, str]) -> Outcome:
    """Run to the end or to the deadline; nothing is left running either way.

    Raises:
        InfrastructureError: the command cannot be executed at all.
    """
    launch = Launch(
        command=isolated(command.command, words),
        workspace=command.folder,
        env=clean_environment(command.home, command.gpus),
        log=command.log,
        cpus=command.cpus,
        gpus=command.gpus,
        pod=None if command.pod is None else command.pod.holder_pid,
        hidden=command.hidden,
    )
    try:
        with RunningProcess(launch) as process:
            code = process.wait(command.timeout_s)
    except NotExecutable as error:
        raise InfrastructureError(
            f"[{command.table}] command cannot be executed: {error}; install it or change target.toml"
        ) from error
    return Outcome(code=code, output=end_of(command.log))


def isolated(command: tuple[str, ...], words: dict[str, str]) -> tuple[str, ...]:
    """Placeholders filled; `{python} script.py` gets `-I`: neither environment nor the script's folder adds imports."""
    python = sys.executable
    filled = fill(command, {"python": python, **words})
    if filled[0] == python and len(filled) > 1 and filled[1].endswith(".py"):
        # -I also ignores PYTHONDONTWRITEBYTECODE and PYTHONUNBUFFERED, hence -B and -u.
        return (python, "-I", "-B", "-u", *filled[1:])
    return filled


def end_of(path: Path, characters: int = EVIDENCE_CHARACTERS) -> str:
    """The end of a text file without control characters; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4 * characters))
            return printable(file.read().decode(errors="replace"))[-characters:]
    except OSError:
        return ""
