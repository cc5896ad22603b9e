"""Decides where a coding CLI is on this machine, whether it is new enough, and what of the machine it needs to run."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from evaluators.node import Check
from population.errors import ProviderRefused
from vibeserve.agents.clis.cli import CodingCli, Version

_VERSION = re.compile(r"\b(\d+)\.(\d+)\.(\d+)")
_TIMEOUT_S = 60.0
_SHEBANG_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A CLI that can be run in the sandbox."""

    command: tuple[str, ...]
    """With its interpreter, where it needs one."""
    version: Version
    readable: tuple[Path, ...]
    """What has to be bound into the sandbox: nothing of what is below /usr."""

    @property
    def release(self) -> str:
        return ".".join(map(str, self.version))


class NotUsable(Exception):  # becomes a problem of the config, a check of `doctor`, or the end of a run
    """The CLI is not there, does not run, or is too old."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause}; {cure}")
        self.cause, self.cure = cause, cure


def find(cli: CodingCli, command: str | None = None) -> Installed:
    """The CLI of this machine.

    Args:
        cli: which.
        command: its path, or a name on PATH; None: its own name.

    Raises:
        NotUsable: there is none that is known to work.
    """
    cure = f"npm install -g {cli.package}@latest, or set [agents] command"
    found = shutil.which(command or cli.name)
    if found is None:
        raise NotUsable(f"expected the program {command or cli.name}, found none", cure)
    program = Path(found).resolve()
    installed = _looked_at(program)
    if installed is None:
        raise NotUsable(f"expected a version from {program} --version, got none", cure)
    if installed.version < cli.tested:
        wanted = ".".join(map(str, cli.tested))
        raise NotUsable(f"expected {cli.name} {wanted} or newer, got {installed.release} at {program}", cure)
    return installed


def required(cli: CodingCli, command: str | None) -> Installed:
    """The same, for who is about to use it.

    Raises:
        ProviderRefused: there is none on this machine.
    """
    try:
        return find(cli, command)
    except NotUsable as problem:
        raise ProviderRefused(f"{cli.name}: {problem}") from None


def check(cli: CodingCli) -> Check:
    """For `doctor`."""
    try:
        installed = find(cli)
    except NotUsable as problem:
        return Check(name=cli.name, ok=False, detail=problem.cause, cure=problem.cure)
    return Check(name=cli.name, ok=True, detail=f"{installed.release} at {installed.command[-1]}")


@cache
def _looked_at(program: Path) -> Installed | None:
    """Asked once per process; with an empty HOME and environment, so that it finds nobody's settings or logins."""
    node = _node() if _is_script(program) else None
    command = (str(program),) if node is None else (str(node), str(program))
    with tempfile.TemporaryDirectory(prefix="vibeserve-") as home:
        env = {"HOME": home, "PATH": "/usr/local/bin:/usr/bin:/bin"}
        try:
            answer = subprocess.run(
                [*command, "--version"],
                env=env,
                cwd=home,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
    version = _VERSION.search(answer.stdout)
    if version is None:
        return None
    needed = (_package(program), *(() if node is None else (node,)))
    readable = tuple(path for path in needed if not path.is_relative_to("/usr"))
    return Installed(command=command, version=(int(version[1]), int(version[2]), int(version[3])), readable=readable)


def _package(program: Path) -> Path:
    """The outermost `node_modules` that the program is in, where its dependencies are too; else the program alone."""
    folders = [folder for folder in program.parents if folder.name == "node_modules"]
    return folders[-1] if folders else program


def _is_script(program: Path) -> bool:
    """Whether it wants node, which a sandbox with a clean PATH would not find everywhere."""
    try:
        with program.open("rb") as file:
            first = file.read(_SHEBANG_BYTES).split(b"\n", 1)[0]
    except OSError:
        return False
    return first.startswith(b"#!") and b"node" in first


def _node() -> Path | None:
    found = shutil.which("node")
    return Path(found).resolve() if found else None
