"""Decides what the hardware of an evaluation is called, and what it is known by, so that only equals are compared.

`hardware` is for people: models and counts. `fingerprint` is for the rule that every measurement of a run is made on
the same hardware: whatever of the machine changes how fast a server is, as far as one can ask for it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_TIMEOUT_S = 20.0
_GPU_FACTS: Mapping[str, str] = {
    "name": "GPU",
    "memory.total": "GPU memory",
    "power.limit": "GPU power limit",
    "clocks.max.sm": "GPU SM clock at most",
    "clocks.max.memory": "GPU memory clock at most",
    "mig.mode.current": "GPU MIG",
    "ecc.mode.current": "GPU ECC",
    "driver_version": "NVIDIA driver",
}
"""Field of `nvidia-smi --query-gpu` → what it is called in a fingerprint."""
_PACKAGES = ("numpy", "torch", "triton", "vllm", "flashinfer-python", "transformers")
"""What servers compute with; part of the fingerprint where the node's Python has it."""
_NO_ANSWER = "unknown"


def fingerprint(gpus: Sequence[str] | None = ()) -> dict[str, str]:
    """What tells machines apart on which the same server is not equally fast: fact → value.

    Args:
        gpus: indices or UUIDs of a lease's GPUs; None: the GPUs of the machine, as a lease of any of them would have
            it. GPUs that differ are named together, as in `NVIDIA A100 + NVIDIA H200`.
    """
    if gpus is not None and not gpus:
        return dict(_software())
    return {**_software(), **_gpu_facts(_usable_gpus() if gpus is None else gpus)}


def hardware(cpus: int, gpus: Sequence[str] = ()) -> str:
    """`2 × Intel Xeon Platinum 8481C, 1 × NVIDIA H200`: what a lease of so many CPUs and of these GPUs consists of."""
    models = Counter(gpu_model(gpu) for gpu in gpus)
    return ", ".join([f"{cpus} × {cpu_model()}", *(f"{n} × {model}" for model, n in sorted(models.items()))])


def machine() -> str:
    """The same for all that this machine lets us use, where nobody has a lease of it."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return hardware(cpus, [str(index) for index in range(len(_gpu_names()))])


@cache
def cpu_model() -> str:
    """As the kernel names it; the architecture where it names none."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    model = " ".join(next(named, "").split())
    return model if model and model != "unknown" else f"{platform.machine()} CPU"


@cache
def gpu_model(gpu: str) -> str:
    """As nvidia-smi names the GPU of this index or UUID; `GPU` where it does not."""
    return next(iter(_gpu_names(gpu)), "GPU")


@cache
def _software() -> dict[str, str]:
    """The parts that stay the same as long as this process lives."""
    facts = {"CPU": cpu_model(), "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts


def _gpu_facts(gpus: Sequence[str]) -> dict[str, str]:
    """Asked anew each time: power limits and drivers change under a process that lives long."""
    query = [*_selected(gpus), f"--query-gpu={','.join(_GPU_FACTS)}", "--format=csv,noheader"]
    rows = [[cell.strip() for cell in line.split(",")] for line in _nvidia_smi(*query).splitlines() if line.strip()]
    rows = [row for row in rows if len(row) == len(_GPU_FACTS)]
    facts = {"GPU": _NO_ANSWER}
    for column, name in enumerate(_GPU_FACTS.values() if rows else ()):
        facts[name] = " + ".join(sorted({row[column] for row in rows}))
    found = re.search(r"CUDA Version\s*:\s*([\d.]+)", _nvidia_smi())
    return facts | {"CUDA": found[1] if found else _NO_ANSWER}


def _usable_gpus() -> tuple[str, ...]:
    """Those that the process was given. Empty, which means all: also where a mutation has hidden them from itself."""
    return tuple(gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu)


def _selected(gpus: Sequence[str]) -> list[str]:
    return ["-i", ",".join(gpus)] if gpus else []


def _nvidia_smi(*options: str) -> str:
    """What it prints; empty where it is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        return subprocess.run(
            [program, *options], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _gpu_names(which: str | None = None) -> list[str]:
    """One per GPU; empty where nvidia-smi is missing or fails."""
    listing = _nvidia_smi(*_selected([which] if which else []), "--query-gpu=name", "--format=csv,noheader")
    return [line.strip() for line in listing.splitlines() if line.strip()]
