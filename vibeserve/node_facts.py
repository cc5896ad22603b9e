"""Decides what a node of a cluster says of itself: what a search needs there, and what is useful."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from evaluators.hardware import fingerprint
from evaluators.node import Check, NodeReport, inspect_node, nvidia_gpus
from vibeserve.agents.clis.installed import NotUsable, find
from vibeserve.agents.clis.registry import CLIS

TOOLS = ("git", "bwrap", "nsys", "codex", "claude", "gemini", "opencode")
"""Programs that a node can have; the last four are coding agents, which mutations may use."""
_MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What one machine has."""

    python: str
    ray: str | None
    cpus: int
    """Logical CPUs that processes there may use."""
    memory_gb: float | None
    disk_free_gb: float
    """Of the fuller one of two places: temporary files, and VibeServe's cache."""
    disk_place: str
    gpus: tuple[str, ...]
    """`name, memory` of each that nvidia-smi lists, whatever Ray was told."""
    tools: Mapping[str, str | None]
    """Program → path; None: not found."""
    git: Check
    fingerprint: Mapping[str, str]
    report: NodeReport
    """How its isolation stood the attacks."""
    clis: Mapping[str, str] = field(default_factory=dict)
    """Coding CLI → version, of those that can make children there."""


def node_facts(allow_reduced: bool) -> NodeFacts:
    """Everything about this machine; takes some ten seconds."""
    from vibeserve.machine import git

    gpus = tuple(nvidia_gpus())
    free_gb, place = min(_free(folder) for folder in (Path(tempfile.gettempdir()), _cache()))
    return NodeFacts(
        python=platform.python_version(),
        ray=_version("ray"),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=_memory_gb(),
        disk_free_gb=free_gb,
        disk_place=place,
        gpus=gpus,
        tools={tool: shutil.which(tool) for tool in TOOLS},
        git=git(),
        fingerprint=fingerprint(None if gpus else ()),
        report=inspect_node(allow_reduced),
        clis=_clis(),
    )


def _clis() -> dict[str, str]:
    found = {}
    for name, cli in CLIS.items():
        with suppress(NotUsable):
            found[name] = find(cli).release
    return found


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vibeserve"


def _free(folder: Path) -> tuple[float, str]:
    there = folder
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free / 1e9, str(folder)


def _memory_gb() -> float | None:
    try:
        rows = dict(line.split(":", 1) for line in _MEMORY.read_text(encoding="ascii").splitlines())
        return int(rows["MemTotal"].split()[0]) * 1024 / 1e9
    except (OSError, KeyError, ValueError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
