"""Decides whether machines can run a search: what is needed, what is only useful, and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.node import Check, probe
from vibeserve.agents.clis.installed import check
from vibeserve.agents.clis.registry import CLIS
from vibeserve.runs import default_runs_dir

if TYPE_CHECKING:
    from vibeserve.cluster.census import NodeState

_MIN_GIT = (2, 38)
"""First with `git merge-tree --write-tree`."""
_MIN_FREE_GB = 1.0
_OPTIONAL = frozenset({"bubblewrap", "py-spy", "gpus", "ray tokens", "cpus", "system", *CLIS})


def checks() -> list[tuple[Check, bool]]:
    """Every check, and whether a run needs it."""
    found = [_python(), _ray(), git(), _disk(default_runs_dir()), _ray_tokens(), *probe()]
    found += [check(cli) for cli in CLIS.values()]
    return [(each, each.name not in _OPTIONAL) for each in found]


def cluster_nodes(address: str, allow_reduced: bool) -> tuple[list[NodeState], str | None]:
    """Every node of the cluster at `address` (`local`: Ray is started here), those with problems first.

    And what differs between those with GPUs, if anything does.

    Raises:
        InfrastructureError: no cluster answers there.
    """
    from vibeserve.cluster import census, connection

    connection.connect(None if address == "local" else address)
    try:
        states = census.census(allow_reduced)
        return states, census.kinds_apart(states)
    finally:
        connection.disconnect()


def _python() -> Check:
    version = sys.version.split()[0]
    return Check(name="python", ok=sys.version_info >= (3, 11), detail=version, cure="install Python 3.11 or newer")


def _ray() -> Check:
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        cure = "pip install 'ray[default]>=2.60', or run without it: -s cluster.executor=inline"
        return Check(name="ray", ok=False, detail="not installed", cure=cure)
    return Check(name="ray", ok=True, detail=version)


def git() -> Check:
    """Whether git is new enough for merges."""
    cure = f"install git {'.'.join(map(str, _MIN_GIT))} or newer: merges need `git merge-tree --write-tree`"
    path = shutil.which("git")
    if path is None:
        return Check(name="git", ok=False, detail="not found", cure=cure)
    try:
        text = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name="git", ok=False, detail=f"{path} does not run: {error}", cure=cure)
    match = re.search(r"(\d+)\.(\d+)", text)
    ok = match is not None and (int(match[1]), int(match[2])) >= _MIN_GIT
    return Check(name="git", ok=ok, detail=text.removeprefix("git version "), cure=cure)


def _disk(runs_dir: Path) -> Check:
    folder = runs_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    free_gb = shutil.disk_usage(folder).free / 1e9
    writable = os.access(folder, os.W_OK)
    detail = f"{free_gb:.1f} GB free for {runs_dir}" + ("" if writable else ", not writable")
    cure = f"free some space or choose another folder with --runs-dir (expected at least {_MIN_FREE_GB:g} GB)"
    return Check(name="disk", ok=writable and free_gb >= _MIN_FREE_GB, detail=detail, cure=cure)


def _ray_tokens() -> Check:
    """Ray authenticates by a token file; `ray job submit` sends it only when told to, on both sides."""
    from vibeserve.config import ray_auth

    address, mode = ray_auth()
    if address is None:
        return Check(name="ray tokens", ok=True, detail="not needed: Ray is started for the run on this machine")
    cure = "export RAY_AUTH_MODE=token here and where `ray start --head` runs, so that both sides use the token file"
    return Check(
        name="ray tokens", ok=mode == "token", detail=f"RAY_ADDRESS={address}, mode {mode or 'unset'}", cure=cure
    )
