"""Decides how a command is isolated: the environment it sees, and the tier that every record names.

Tier A: bubblewrap. Tier B: Landlock + seccomp. Tier C: clean environment, process-tree kill, rlimits; for first-party
trees only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from evaluators.pod import Pod
from evaluators.process import Launch, RunningProcess
from population.errors import InfrastructureError

Tier = Literal["A", "B", "C"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a tier cannot be had on this machine, and what would change that."""

    cause: str
    cure: str


class Sandbox(Protocol):
    """Starts commands that cannot harm the machine, as far as the tier promises."""

    @property
    def tier(self) -> Tier:
        """Stamped into each evaluation."""
        ...

    @property
    def gaps(self) -> tuple[str, ...]:
        """What this tier leaves open on this machine, one clause each; stamped into each evaluation."""
        ...

    def pod(self) -> AbstractContextManager[Pod | None]:
        """A network for one evaluation, loopback only, that its server and its clients share; None: the host's."""
        ...

    def launch(self, launch: Launch) -> RunningProcess:
        """Start a command.

        Raises:
            NotExecutable: there is no such command in the sandbox.
            InfrastructureError: the machine cannot isolate or start it.
        """
        ...


class PlainSandbox:
    """Tier C: what `RunningProcess` does by itself, nothing more."""

    tier: Tier = "C"
    gaps = (
        "files: reads and writes what our own user can",
        "network: the host's, and whatever the host reaches",
        "processes: sees, signals and traces those of our own user",
        "resources: memory, processes and disk are not limited",
    )

    def pod(self) -> AbstractContextManager[None]:
        return nullcontext()

    def launch(self, launch: Launch) -> RunningProcess:
        return RunningProcess(launch)


def clean_environment(
    home: Path,
    gpus: tuple[str, ...] = (),
    extra: Mapping[str, str] | None = None,
    compiled: Path | None = None,
) -> dict[str, str]:
    """The allow-list: everything a command sees, built from nothing; `extra` is what the target's `[server] env` adds.

    Never PYTHONPATH, RAY_*, keys or the caller's HOME. Caches go below `home`, which is private to one evaluation;
    where `compiled` is given, those of compilers go there.
    """
    cache = home / ".cache"
    compilers = compiled or cache
    temporary = home / "tmp"
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        cache.mkdir(exist_ok=True)
    except OSError as error:
        raise InfrastructureError(
            f"cannot create {temporary}: {error.strerror}; free some space or choose another folder"
        ) from error
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "XDG_CACHE_HOME": str(cache),
        "HF_HOME": str(cache / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "TRITON_CACHE_DIR": str(compilers / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(compilers / "inductor"),
        "CUDA_CACHE_PATH": str(compilers / "cuda"),
        "CUDA_VISIBLE_DEVICES": ",".join(gpus),
        **(extra or {}),
    }
