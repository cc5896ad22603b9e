"""Decides what can be said about a command before it starts: everything, because nothing is inherited."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
_RLIMITS = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 65536, "RLIMIT_FSIZE": 8 << 30}


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclosure:
    """What the supervisor prepares around the command, or around a wrapper (bubblewrap) that then executes it."""

    files: Mapping[int, bytes] = field(default_factory=dict)
    """Descriptors that the wrapper inherits, and what can be read from them."""
    status_fd: int | None = None
    """Descriptor on which the wrapper reports, as JSON, that the command ran (`--json-status-fd`); None: no wrapper."""
    stage: str = "/tmp"
    """Folder below which `stages` appear, in a mount namespace of the wrapper's own."""
    stages: tuple[Path, ...] = ()
    """Files and folders to bind to `stage`/0, /1, …; needs root."""
    uid: int | None = None
    """User (and group) to become; None: stay who we are."""
    groups: tuple[Path, ...] = ()
    """Control groups to enter, and to remove when the tree is gone."""
    watch: Mapping[str, int] = field(default_factory=dict)
    """Limits that nothing else keeps, for the supervisor to look after: `memory_bytes`, `pids`, `disk_bytes`."""
    bounded: tuple[Path, ...] = ()
    """The folders that may take `disk_bytes` together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One command, completely described; nothing is inherited from the calling process."""

    command: tuple[str, ...]
    workspace: Path
    """Working directory."""
    env: Mapping[str, str]
    """The whole environment."""
    log: Path
    """Receives stdout and stderr together."""
    log_limit_bytes: int = 1 << 20
    cpus: tuple[int, ...] = ()
    """Logical CPUs to pin to; empty: no pinning."""
    gpus: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=lambda: dict(_RLIMITS))
    """Names of `resource.RLIMIT_*` → limit."""
    writable: tuple[Path, ...] = ()
    """Folders the command may write, besides private temporary ones; enforced by isolation tiers A and B."""
    readable: tuple[Path, ...] = ()
    """Further folders that it may read; enforced by isolation tiers A and B."""
    pod: int | None = None
    """Holder of the pod whose network the command joins (`Pod.holder_pid`); None: the host's network."""
    hidden: tuple[Path, ...] = ()
    """Folders that are empty for a trusted command; an ordinary user needs a pod for it."""
    enclosure: Enclosure | None = None
    """What a sandbox prepares around the command (isolation tiers A and B)."""
    ports: tuple[int, ...] = ()
    """TCP ports that the command may listen on; enforced by isolation tier B (tier A has a network of its own)."""
    confine: Mapping[str, Any] | None = None
    """What the command gives up just before exec (`confine.Plan`, isolation tier B)."""

    def to_json(self) -> dict[str, Any]:
        """As the supervisor reads it."""
        around = self.enclosure
        return {
            "argv": list(self.command),
            "cwd": str(self.workspace),
            "env": dict(self.env),
            "log": str(self.log),
            "log_limit_bytes": self.log_limit_bytes,
            "cpus": list(self.cpus),
            "limits": dict(self.limits),
            "pod": self.pod,
            "hidden": [str(folder) for folder in self.hidden],
            "confine": self.confine,
            "files": {} if around is None else {fd: b64encode(text).decode() for fd, text in around.files.items()},
            "status_fd": None if around is None else around.status_fd,
            "stage": "" if around is None else around.stage,
            "stages": [] if around is None else [str(path) for path in around.stages],
            "uid": None if around is None else around.uid,
            "groups": [] if around is None else [str(folder) for folder in around.groups],
            "watch": {} if around is None else dict(around.watch),
            "bounded": [] if around is None else [str(folder) for folder in around.bounded],
        }
