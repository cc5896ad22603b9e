"""Decides how servers are measured, one alone or two in turn, and what the repeats amount to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluators.load.endpoint import Endpoint
from evaluators.load.plan import Seeds
from evaluators.load.result import LoadResult
from evaluators.load.session import ClientOptions, run_loads
from evaluators.target_problems import CLIENT_METRICS
from population.objectives import Direction
from population.statistics import Estimate, estimate, paired_ratio
from vibeserve.benching.workload import Workload

PAIRS = 6
"""Repeats on either server by default: from six pairs on, the effect of order is taken out of a ratio."""
RELATIVE_NOISE = 0.05
"""What one repeat is believed to vary by, as in targets that declare nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All repeats of all loads on one server."""

    url: str
    model: str
    repeats: tuple[tuple[LoadResult, ...], ...]
    """One tuple of results, in the order of the loads, per repeat."""

    @property
    def samples(self) -> dict[str, tuple[float, ...]]:
        """`metric@load` → one value per repeat, of metrics that every repeat has."""
        found: dict[str, tuple[float, ...]] = {}
        for results in self.repeats:
            for result in results:
                for name, value in result.metrics.items():
                    key = f"{name}@{result.load.name}"
                    found[key] = (*found.get(key, ()), value)
        return {key: values for key, values in found.items() if len(values) == len(self.repeats)}

    @property
    def estimates(self) -> dict[str, Estimate]:
        """`metric@load` → centre and 95 % interval."""
        return {key: _estimate(key, values) for key, values in self.samples.items() if min(values) >= 0}

    @property
    def flags(self) -> tuple[str, ...]:
        """Every caveat of every repeat."""
        return tuple(sorted({flag for results in self.repeats for result in results for flag in result.flags}))

    @property
    def answered(self) -> bool:
        """Whether every load got an answer, if only the beginning of one."""
        return all(_answered(result) for results in self.repeats for result in results)

    def silent(self, load: str) -> bool:
        """Whether this load never got an answer."""
        return not any(_answered(r) for results in self.repeats for r in results if r.load.name == load)


def measure(
    endpoints: Sequence[Endpoint],
    workload: Workload,
    repeats: int,
    seed: int,
    options: ClientOptions,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[Measured, ...]:
    """Every repeat asks the servers the same in turn, and the order of turns alternates (ABBA).

    Arrivals and lengths are the same in every repeat; the contents of prompts are not.

    Raises:
        ConfigError: a defect of an endpoint or of a load.
        InfrastructureError: a server does not answer, or a client process died.
    """
    found: list[list[tuple[LoadResult, ...]]] = [[] for _ in endpoints]
    for repeat in range(repeats):
        turns = range(len(endpoints)) if repeat % 2 == 0 else reversed(range(len(endpoints)))
        for place in turns:
            if repeats > 1 or len(endpoints) > 1:
                progress(f"repeat {repeat + 1}/{repeats}: {endpoints[place].url}")
            seeds = Seeds(trace=seed, content=seed + repeat)
            results = run_loads(
                endpoints[place], workload.loads, seeds, warmup_requests=workload.warmup_requests, options=options
            )
            found[place].append(tuple(results))
    return tuple(
        Measured(url=endpoint.url, model=endpoint.model, repeats=tuple(results))
        for endpoint, results in zip(endpoints, found, strict=True)
    )


def direction(metric: str) -> Direction:
    """Which way is better, of a metric of the client's."""
    return Direction.MIN if metric.partition("@")[0].endswith("_ms") else Direction.MAX


def gains(first: Measured, second: Measured) -> dict[str, Estimate]:
    """`metric@load` → how many times better the first server is, by paired repeats; empty with fewer than two."""
    ours, theirs = first.samples, second.samples
    found = {}
    for key in ours:
        if key.partition("@")[0] in CLIENT_METRICS and key in theirs and len(ours[key]) >= 2:
            above, below = (ours, theirs) if direction(key) is Direction.MAX else (theirs, ours)
            found[key] = paired_ratio(above[key], below[key])
    return found


def _answered(result: LoadResult) -> bool:
    return bool(result.metrics.get("completed") or result.metrics.get("censored"))


def _estimate(key: str, values: Sequence[float]) -> Estimate:
    """Of performance the centre with its interval; of counts, and of what the client used, the mean and the range."""
    if key.partition("@")[0] in CLIENT_METRICS:
        return estimate(values, RELATIVE_NOISE)
    return Estimate(value=sum(values) / len(values), low=min(values), high=max(values), n=len(values))
