"""Decides which CPUs and which scratch folder an evaluation owns on its machine while it runs.

Ray counts CPUs but does not say which; two evaluations pinned to the same core would measure each other. A lock file
per logical CPU, held for the length of the lease, keeps evaluations apart, also those of different runs.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

from evaluators.evaluator import Lease
from evaluators.node import nvidia_gpus
from population.errors import InfrastructureError

_POLL_S = 0.05


def allowed_cpus() -> tuple[int, ...]:
    """Logical CPUs this process may use, ascending; all of them where the platform does not say."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def visible_gpus(count: int) -> tuple[str, ...]:
    """The GPUs that this process was given, by CUDA_VISIBLE_DEVICES (Ray sets it); without it, the first `count`."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return tuple(gpu for gpu in listed.split(",") if gpu)
    return tuple(map(str, range(min(count, len(nvidia_gpus()) if count else 0))))


@contextmanager
def lease(cpus: int, gpus: Sequence[str] = (), wait_s: float = 600.0) -> Iterator[Lease]:
    """Hold `cpus` logical CPUs (fewer only if the machine has fewer; 0: none) and a private scratch folder.

    Raises:
        InfrastructureError: the CPUs did not become free within `wait_s` seconds.
    """
    wanted = min(cpus, len(allowed_cpus()))
    with ExitStack() as stack:
        held = _take(wanted, wait_s, stack)
        scratch = Path(tempfile.mkdtemp(prefix="vibeserve-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        yield Lease(cpus=held, gpus=tuple(gpus), scratch=scratch)


def _take(wanted: int, wait_s: float, stack: ExitStack) -> tuple[int, ...]:
    folder = Path(tempfile.gettempdir()) / f"vibeserve-cpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    deadline = time.monotonic() + wait_s
    while True:
        with ExitStack() as attempt:
            free = (cpu for cpu in allowed_cpus() if _lock(folder / f"{cpu}.lock", attempt))
            held = tuple(islice(free, wanted))
            if len(held) == wanted:
                stack.push(attempt.pop_all())
                return held
        if time.monotonic() > deadline:
            raise InfrastructureError(
                f"expected {wanted} free CPUs for an evaluation, but others held them for {wait_s:.0f} s; "
                f"end the other run, or lower [resources] cpus of the target (locks: {folder})"
            )
        time.sleep(_POLL_S)


def _lock(path: Path, stack: ExitStack) -> bool:
    handle: IO[str] = open(path, "w", encoding="utf-8")  # noqa: SIM115  # closed by the stack, which ends the lock
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return False
    stack.callback(handle.close)
    return True
