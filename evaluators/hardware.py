"""Decides what the hardware of an evaluation is called, so that only equal machines are compared."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_TIMEOUT_S = 20.0


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


def _gpu_names(which: str | None = None) -> list[str]:
    """One per GPU; empty where nvidia-smi is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, *(["-i", which] if which else []), "--query-gpu=name", "--format=csv,noheader"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listing.splitlines() if line.strip()]
