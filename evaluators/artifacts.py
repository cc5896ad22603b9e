"""Decides where a target's built artifacts (weights and the like) are: made once per node, shared read-only."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from evaluators.command import TrustedCommand, run_trusted
from evaluators.fingerprint import digest
from evaluators.server import describe_exit
from evaluators.target import Target
from population.disk import Disk, sync_tree
from population.errors import InfrastructureError


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/vibeserve`, `~/.cache/vibeserve` without it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vibeserve"


def artifacts_key(target: Target) -> str:
    """Digest of what the artifacts depend on: the reference folder and the command."""
    command = target.artifacts.command if target.artifacts is not None else ()
    return hashlib.sha256(f"{digest(target.folder / 'reference')} {json.dumps(command)}".encode()).hexdigest()


def artifacts_folder(target: Target, cache: Path, cpus: tuple[int, ...] = (), gpus: tuple[str, ...] = ()) -> Path:
    """The folder for `{artifacts}`, built now if this node has none yet; without `[artifacts]` the reference folder.

    Other processes of the node that want the same artifacts wait for one of them to build.

    Raises:
        InfrastructureError: the build failed, ran out of time, or cannot be stored.
    """
    if target.artifacts is None:
        return target.folder / "reference"
    store = cache / "artifacts"
    folder = store / artifacts_key(target)
    if folder.is_dir():
        return folder
    try:
        store.mkdir(parents=True, exist_ok=True)
        with (store / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _build(target, folder, cpus, gpus)
    except OSError as error:
        raise InfrastructureError(f"cannot store artifacts in {store}: {error.strerror or error}") from error
    return folder


def _build(target: Target, folder: Path, cpus: tuple[int, ...], gpus: tuple[str, ...]) -> None:
    assert target.artifacts is not None
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name[:12]}-", dir=folder.parent))
    try:
        made = scratch / "made"
        made.mkdir()
        command = TrustedCommand(
            table="artifacts",
            command=target.artifacts.command,
            folder=target.folder,
            timeout_s=target.artifacts.timeout_s,
            log=scratch / "build.log",
            home=scratch / "home",
            cpus=cpus,
            gpus=gpus,
        )
        outcome = run_trusted(command, {"artifacts": str(made)})
        if outcome.code != 0:
            ended = (
                f"did not end in {command.timeout_s:g} s"
                if outcome.code is None
                else f"failed ({describe_exit(outcome.code)})"
            )
            raise InfrastructureError(f"the target's [artifacts] command {ended}:\n{outcome.output}")
        _make_read_only(made)
        sync_tree(made, Disk())  # after a power cut it is all there, or is built again
        made.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _make_read_only(folder: Path) -> None:
    """Files only: folders stay writable for their owner, who could not delete the cache otherwise."""
    for parent, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                Path(parent, name).chmod(0o444)
