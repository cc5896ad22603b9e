"""Decides how git is run: on our own folder, without anything that a user or a candidate has configured."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from population.errors import InfrastructureError, RepositoryError
from population.git_objects import GitObject

_TIMEOUT_S = 120
_OPTIONS = (
    *(
        "core.fsmonitor=false",
        "core.hooksPath=/dev/null",
        "core.attributesFile=/dev/null",
        "core.excludesFile=/dev/null",
    ),
    *("protocol.allow=never", "gc.auto=0", "maintenance.auto=false", "merge.renormalize=false", "diff.external="),
    *("core.quotePath=true", "core.logAllRefUpdates=false", "core.symlinks=true", "core.commitGraph=false"),
)


def run_git(
    path: Path | None, *args: str, data: bytes = b"", allowed: tuple[int, ...] = (0,), durable: bool = False
) -> tuple[int, bytes]:
    """Exit status and output of a git command on the repository at `path`; `durable`: it syncs what it writes.

    Raises:
        RepositoryError: it ended with a status that is not `allowed`.
        InfrastructureError: the disk is full, or it did not end.
    """
    command = _command(path, durable, *args)
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, env=_environment(), cwd="/", timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise InfrastructureError(
            f"git {args[0]} on {path}: expected an end within {_TIMEOUT_S} s; is the disk slow?"
        ) from None
    if done.returncode not in allowed:
        said = done.stderr.decode("utf-8", errors="replace").strip()[-1000:]
        if os.strerror(errno.ENOSPC) in said or os.strerror(errno.EDQUOT) in said:
            raise InfrastructureError(f"{path}: the disk is full: free some space, then resume ({said})")
        raise RepositoryError(
            f"git {args[0]} on {path}: expected exit status 0, got {done.returncode}: {said or 'no message'}"
        )
    return done.returncode, done.stdout


def read_object(path: Path, sha: str) -> GitObject | None:
    """An object that git stores as a difference; None if it is not there."""
    said = run_git(path, "cat-file", "--batch", data=sha.encode("ascii") + b"\n")[1]
    head, _, body = said.partition(b"\n")
    words = head.decode("ascii", errors="replace").split()
    if len(words) != 3:
        return None
    return GitObject(words[1], body[: int(words[2])])  # type: ignore[arg-type]  # git knows no kind but these and tags


def require_version() -> None:
    """Raises:
    RepositoryError: no git, or one that cannot merge without a work tree.
    """
    _version(executable())


@cache
def _version(git: str) -> None:
    said = run_git(None, "version")[1].decode("ascii", errors="replace").strip()
    match = re.search(r"(\d+)\.(\d+)", said)
    if match is None or (int(match[1]), int(match[2])) < (2, 38):
        raise RepositoryError(f"expected git ≥ 2.38 (merge-tree --write-tree), got '{said}' at {git}; update git")


@cache
def executable() -> str:
    """Where git is.

    Raises:
        RepositoryError: there is none.
    """
    found = shutil.which("git")
    if found is None:
        raise RepositoryError("expected git ≥ 2.38 on PATH, found none; install git")
    return found


def _command(path: Path | None, durable: bool, *args: str) -> list[str]:
    options = [word for option in (*_OPTIONS, f"core.fsync={'all' if durable else 'none'}") for word in ("-c", option)]
    place = [] if path is None else [f"--git-dir={path.absolute()}"]
    return [executable(), "--literal-pathspecs", "--no-replace-objects", "--no-pager", *options, *place, *args]


def _environment() -> dict[str, str]:
    """All that git gets to see."""
    return {
        "PATH": os.defpath,
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_GRAFT_FILE": os.devnull,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }
