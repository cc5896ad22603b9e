"""Decides how the servers of a comparison are started, side by side on one GPU, and what the machine is."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from evaluators.sandbox import PlainSandbox, clean_environment  # noqa: E402
from evaluators.server import ServerCommand, ServerUnderTest  # noqa: E402
from evaluators.target_schema import ServerTable  # noqa: E402

OURS, VLLM = "ours", "vllm"
TARGET = HERE.parents[1] / "examples" / "llama-3.1-8b"
COMMAND = ("{python}", "server.py", "--host", "{host}", "--port", "{port}", "--artifacts", "{artifacts}")
READY_TIMEOUT_S = {OURS: 180.0, VLLM: 420.0}


class StartFailed(Exception):
    """A server did not come up: says why, with the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One server: its tree, and what its environment has beyond the allow-list."""

    name: str
    tree: Path
    options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def contestants(tree: Path, site: Path | None, memory: float) -> tuple[Contestant, ...]:
    """Ours and, where `site` has it, vLLM with this share of the GPU's memory."""
    ours = Contestant(name=OURS, tree=tree, env={"OMP_NUM_THREADS": "1"})
    if site is None:
        return (ours,)
    return ours, Contestant(
        name=VLLM, tree=HERE / "vllm", options=("--memory", str(memory)), env={"PYTHONPATH": str(site)}
    )


@contextmanager
def running(
    entrants: Sequence[Contestant], artifacts: Path, output: Path, cpus: tuple[int, ...]
) -> Iterator[dict[str, str]]:
    """Name → URL of servers that are ready, started one after the other, so that each sees the memory that is left.

    Raises:
        StartFailed: one of them did not come up.
    """
    with ExitStack() as stack:
        urls = {}
        for entrant in entrants:
            command = ServerCommand(
                table=ServerTable(
                    command=COMMAND + entrant.options, ready_timeout_s=READY_TIMEOUT_S[entrant.name], stop_grace_s=5
                ),
                workspace=entrant.tree,
                log=output / f"{entrant.name}.log",
                env=clean_environment(output / f"home-{entrant.name}", gpus(), entrant.env),
                placeholders={"python": sys.executable, "artifacts": str(artifacts)},
                cpus=cpus,
            )
            server = stack.enter_context(ServerUnderTest(command, PlainSandbox()))
            if (rejected := server.start()) is not None:
                raise StartFailed(f"{entrant.name}: {rejected.reason}\n{rejected.evidence}")
            urls[entrant.name] = server.url
        yield urls


def gpus() -> tuple[str, ...]:
    """The GPU that both share: the first of those that are visible; none where there is none."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "0" if machine()["gpu"] else "")
    return tuple(listed.split(",")[:1]) if listed else ()


def machine() -> dict[str, str]:
    """What measurements must have in common to be compared."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        listed = []
    name, _, driver = listed[0].partition(", ") if listed else ("", "", "")
    versions = {"python": platform.python_version(), "kernel": platform.release(), "cpus": str(os.cpu_count())}
    return {"gpu": name, "driver": driver, **versions}
