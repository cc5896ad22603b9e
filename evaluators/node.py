"""Decides what an evaluation on this node can rely on: the facts that `vibeserve doctor` shows.

How well candidates are isolated here is not looked up but tried, by the attacks of `evaluators/hostile`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from evaluators.bubblewrap import BubblewrapSandbox
from evaluators.confine import landlock_abi
from evaluators.hostile.findings import Probe
from evaluators.hostile.probe import LIMITS, attack
from evaluators.isolation import choose, facts, why_not_a
from evaluators.landlock import LandlockSandbox
from evaluators.sandbox import Problem, Sandbox, Tier
from population.errors import InfrastructureError


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One fact of `vibeserve doctor`; `cure` says what to do when it is not ok."""

    name: str
    ok: bool
    detail: str
    cure: str = ""


def probe() -> list[Check]:
    """What an evaluation on this node can rely on."""
    return [_system(), _cpus(), _bubblewrap(), _py_spy(), _gpus()]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """One node's facts, and how its isolation stood the attacks."""

    node: str
    tier: Tier
    """The one that a tree of somebody else gets here; C: such a tree is refused here."""
    checks: tuple[Check, ...]
    probe: Probe | None
    """None: the attacks could not be carried out."""
    trouble: str = ""
    """Why they could not."""
    better: Problem | None = None
    """What keeps this node from tier A."""

    @property
    def ok(self) -> bool:
        """Whether the tier keeps its promise."""
        return self.probe is not None and not self.probe.unexpected


def inspect_node(allow_reduced: bool = False) -> NodeReport:
    """Everything about this machine; takes some ten seconds. `allow_reduced`: tier B will do where A does not work."""
    sandbox = small(choose(allow_reduced, first_party=True))
    probed, trouble = None, ""
    try:
        probed = attack(sandbox)
    except InfrastructureError as error:
        trouble = str(error)
    return NodeReport(
        node=os.uname().nodename,
        tier=sandbox.tier,
        checks=tuple(probe()),
        probe=probed,
        trouble=trouble,
        better=why_not_a(facts()),
    )


def small(sandbox: Sandbox) -> Sandbox:
    """The same isolation, with the limits that the attacks try to pass; tiers without limits stay as they are."""
    match sandbox:
        case BubblewrapSandbox():
            return BubblewrapSandbox(limits=LIMITS)
        case LandlockSandbox():
            return LandlockSandbox(landlock_abi(), limits=LIMITS)
    return sandbox


def nvidia_gpus() -> list[str]:
    """`name, memory` of each GPU that nvidia-smi lists; empty without one."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _system() -> Check:
    release = os.uname()
    detail = f"{release.sysname} {release.release}, Python {sys.version.split()[0]}"
    cure = "use Linux for measurements: without /proc the noise check and the port check are off"
    return Check(name="system", ok=Path("/proc/self/stat").exists(), detail=detail, cure=cure)


def _cpus() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cure = "give the container at least two CPUs: the server and the load client disturb each other on one"
    return Check(name="cpus", ok=usable >= 2, detail=f"{usable} usable", cure=cure)


def _bubblewrap() -> Check:
    path = shutil.which("bwrap")
    if path is None:
        cure = "install bubblewrap >= 0.8 (apt-get install bubblewrap, dnf install bubblewrap)"
        return Check(name="bubblewrap", ok=False, detail="not found", cure=cure)
    try:
        version = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.split()[-1]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return Check(name="bubblewrap", ok=False, detail=f"{path} does not run: {error}", cure="reinstall bubblewrap")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    cure = "install bubblewrap >= 0.8: older ones cannot switch nested user namespaces off"
    return Check(name="bubblewrap", ok=numbers >= (0, 8), detail=f"{version} at {path}", cure=cure)


def _py_spy() -> Check:
    path = py_spy()
    cure = "pip install py-spy; without it evaluations have no profile hints"
    return Check(name="py-spy", ok=path is not None, detail=path or "not found", cure=cure)


def py_spy() -> str | None:
    """Path of the py-spy program, beside our interpreter or on PATH."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("py-spy")


def _gpus() -> Check:
    gpus = nvidia_gpus()
    torch = "torch installed" if importlib.util.find_spec("torch") else "torch not installed"
    return Check(name="gpus", ok=True, detail=f"{', '.join(gpus)}; {torch}" if gpus else "none (CPU targets only)")
