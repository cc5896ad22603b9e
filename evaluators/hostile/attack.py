"""Decides what an attack is, what it is told about its surroundings, and what proves that it got through.

Like every module of this folder that runs inside the sandbox: standard library only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

CANARY = re.compile(r"canary-[0-9a-f]{32}")
"""Every secret of a probe looks like this, so that an attack can search for secrets that it has not been told."""


class Proof(Enum):
    """What convinces the prober, who stays outside, that an attack got through."""

    LOOT = "loot"
    """It hands back a secret that is known outside and was never told inside."""
    EFFECT = "effect"
    """Its trace is found outside: a changed file, a contact, a stopped process. What it says itself does not count."""
    RESULT = "result"
    """The kernel's answer inside; for calls whose effect would be harmful or cannot be seen from outside."""


class Blocked(Exception):
    """The attack failed without an error from the system; the message says at what."""


class NotApplicable(Exception):
    """There is nothing here that the attack could attack; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A process outside the attacker's sandbox: the harness's own, or a sibling candidate's."""

    role: str
    pid: int
    """As the machine counts."""
    secret_address: int
    """Where a secret lies in its memory."""
    board_address: int
    """Where a foreign process leaves its name; the owner reports what it finds there."""
    secret_fd: int
    tcp_port: int
    """Listens on loopback."""
    abstract: str
    pathname: str
    ipc_key: int
    """Of a System V shared memory segment and a message queue."""
    ipc_name: str
    """Of a POSIX shared memory object, a semaphore and a message queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a candidate could know or guess about its surroundings; never a secret."""

    nonce: str
    """Stands in the command line of each process of the attacker, and of no other."""
    secret_files: Mapping[str, str]
    """Place → path: home, checker, candidate, ray."""
    artifact: str
    log: str
    handle: str
    """The kernel's handle of a secret file, in hex; empty where there is none."""
    uts: str
    """The machine's own UTS namespace."""
    nameserver: str
    cpus: tuple[int, ...]
    """Those that the attacker was given."""
    oom_score_adj: int
    """The harness's own, or 0 if that is less favourable: below it nobody may come without privilege."""
    max_processes: int
    max_memory_bytes: int
    max_disk_bytes: int
    others: tuple[Other, ...]
    inherited: tuple[str, ...] = ()
    """Open descriptors above 2 when the attacker started."""
    parent: int = 0
    """The process that started the attacker, as it sees it."""


def load_scene(path: str) -> Scene:
    """The scene that the prober wrote."""
    value: dict[str, Any] = json.loads(Path(path).read_text())
    others = tuple(Other(**other) for other in value.pop("others"))
    return Scene(**{**value, "cpus": tuple(value["cpus"]), "others": others})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack: its name and what it tries are those of its function."""

    run: Callable[[Scene], str]
    """Returns what it found or how it went; raises OSError or `Blocked` if it failed."""
    proof: Proof
    alone: bool = False
    """Needs a sandbox of its own, because it may take everything in it down."""
    needs: tuple[str, ...] = field(default=())
    """System calls that the kernel must have."""

    @property
    def name(self) -> str:
        return self.run.__name__.replace("_", "-")

    @property
    def tries(self) -> str:
        return (self.run.__doc__ or "").strip().rstrip(".")


def canaries(text: str) -> str:
    """The secrets in `text`.

    Raises:
        Blocked: there is none.
    """
    found = sorted(set(CANARY.findall(text)))
    if not found:
        raise Blocked("nothing secret in sight")
    return " ".join(found)


def read(path: str | Path, limit_bytes: int = 1 << 16) -> str:
    """The beginning of a file."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(fd, limit_bytes).decode(errors="replace")
    finally:
        os.close(fd)


def first_success(ways: list[Callable[[], str]]) -> str:
    """The result of the first way that works.

    Raises:
        OSError, Blocked: the last way's failure.
    """
    failure: OSError | Blocked = Blocked("there was no way to try")
    for way in ways:
        try:
            return way()
        except (OSError, Blocked) as error:
            failure = error
    raise failure


def scratch_folder() -> str:
    """A folder that the attacker may write.

    Raises:
        Blocked: there is none.
    """
    for name in (os.environ.get("TMPDIR"), os.environ.get("HOME"), "/tmp", "/dev/shm"):
        if name and os.access(name, os.W_OK | os.X_OK):
            return name
    raise Blocked("no writable folder")
