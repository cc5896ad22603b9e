"""Decides what Ray itself can do here: chains of two empty tasks, the second submitted when the first has ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from benchmarks.cluster.processes import CpuTime, cpu_time

_IN_FLIGHT = 8


@dataclass(frozen=True, kw_only=True)
class Bare:
    """Chains that were run."""

    chains: int
    wall_s: float
    cpu: CpuTime


def bare_chains(chains: int = 300) -> Bare:
    """A few at once, one evaluation's CPU each."""
    import ray

    first: Any = ray.remote(num_cpus=0, max_retries=0)(_nothing)
    second: Any = ray.remote(num_cpus=1, max_retries=0)(_nothing)
    ray.get([second.remote(0) for _ in range(20)] + [first.remote(0) for _ in range(20)])
    running: dict[Any, bool] = {}
    before, started, begun, ended = cpu_time(), time.perf_counter(), 0, 0
    while ended < chains:
        while begun < chains and len(running) < _IN_FLIGHT:
            running[first.remote(begun)] = False
            begun += 1
        ray.wait(list(running), num_returns=1, timeout=10)
        ready, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
        for ref in ready:
            if running.pop(ref):
                ray.get(ref)
                ended += 1
            else:
                running[second.remote(ray.get(ref))] = True
    return Bare(chains=chains, wall_s=time.perf_counter() - started, cpu=cpu_time() - before)


def _nothing(value: int) -> int:
    return value
