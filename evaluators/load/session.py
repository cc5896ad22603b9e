"""Decides how an evaluation's loads follow each other, over client processes that live as long as it does."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from evaluators.load.endpoint import Endpoint
from evaluators.load.plan import START_PER_S, Jobs, Seeds, ask, measure, warm_up
from evaluators.load.pool import Clients, ThreadClient, WorkerClients, run_share
from evaluators.load.record import Request, Response, write_log
from evaluators.load.result import LoadResult
from evaluators.load.schedule import Prompts
from evaluators.load.workload import Load
from evaluators.pod import Pod
from population.errors import ConfigError

__all__ = ["ClientOptions", "LoadSession", "Seeds", "auto_processes", "run_load", "run_loads"]

TOKENS_PER_S_PER_PROCESS = 8_000.0
"""What one client process follows with headroom (measured: benchmarks/load_generator)."""
TOKENS_PER_S_PER_STREAM = 100.0
"""Guess for closed loops and bursts, whose rate the server decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How the client runs, whatever the load is."""

    processes: int | None = None
    """Client processes; 1 is a thread of this process; None: by the loads' token rate."""
    cpus: tuple[int, ...] = ()
    """Logical CPUs to stay on; empty: anywhere."""
    prefix: tuple[str, ...] = ()
    """Put before the command line of client processes; makes even one client a process."""
    pod: Pod | None = None
    """The network that the server is in; None: the host's."""
    warmup_timeout_s: float = 10.0
    """A warm-up request that takes longer is given up."""
    settle_timeout_s: float = 1.0
    """After a load that was cut off, at most this long is waited for a one-token answer, so that a server that still
    works on cancelled requests does not slow the next load. 0: never wait."""
    log: Path | None = None
    """File that gets one JSON line per request."""


class LoadSession:
    """All loads of one evaluation of one endpoint. A context manager; no process or thread stays behind."""

    def __init__(self, endpoint: Endpoint, loads: Sequence[Load], options: ClientOptions | None = None) -> None:
        """Raises ConfigError with every defect of endpoint and loads."""
        problems = endpoint.problems() + [text for load in loads for text in load.problems()]
        if len({load.name for load in loads}) < len(loads):
            problems.append("two loads have the same name; names key metrics and request ids")
        if problems:
            raise ConfigError(problems)
        self.endpoint, self.options = endpoint, options or ClientOptions()
        self._clients = _clients(loads, self.options)

    def __enter__(self) -> Self:
        self._clients.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clients.close()

    def warm_up(self, load: Load, requests: int, content_seed: int, tokens: int | None = None) -> LoadResult:
        """Send requests of the load's lengths at once and wait for them, or for `tokens` of each.

        Their prompts are never timed ones.
        """
        patient = replace(self.endpoint, request_timeout_s=self.options.warmup_timeout_s)
        return self._drive(warm_up(load, requests, content_seed, patient, tokens))

    def ask(self, requests: Sequence[Request], window_s: float, *, in_turn: bool) -> list[Response]:
        """Send given requests, one after the other or all at once; what is unfinished after `window_s` is cut off."""
        return self._drive(ask(requests, window_s, self.endpoint, in_turn=in_turn)).responses

    def run(self, load: Load, trace_seed: int, content_seed: int) -> LoadResult:
        """Run one load and, if it was cut off, wait for the server to be idle again.

        Raises:
            InfrastructureError: a client process died.
            ConfigError: the prompts of this load cannot be made unique.
        """
        seeds = Seeds(trace=trace_seed, content=content_seed)
        return self._drive(measure(load, seeds, self.endpoint, self.options.settle_timeout_s))

    def _drive(self, jobs: Jobs) -> LoadResult:
        try:
            job, endpoint = next(jobs)
            while True:
                shares = self._clients.run(job, endpoint)
                if self.options.log is not None:
                    write_log(self.options.log, [response for share in shares for response in share.responses])
                job, endpoint = jobs.send(shares)
        except StopIteration as end:
            result: LoadResult = end.value
            return result


def run_loads(
    target: str | Endpoint,
    loads: Sequence[Load],
    seeds: Seeds,
    *,
    warmup_requests: int = 0,
    options: ClientOptions | None = None,
) -> list[LoadResult]:
    """Run loads one after the other on one endpoint, after a warm-up with the first one's lengths.

    Raises:
        ConfigError: a defect of the endpoint or of a load.
        InfrastructureError: a client process died.
    """
    endpoint = target if isinstance(target, Endpoint) else Endpoint(url=target)
    with LoadSession(endpoint, loads, options) as session:
        if warmup_requests and loads:
            session.warm_up(loads[0], warmup_requests, seeds.content)
        return [session.run(load, seeds.trace, seeds.content) for load in loads]


async def run_load(
    target: str | Endpoint, load: Load, trace_seed: int, content_seed: int | None = None, settle_timeout_s: float = 0.0
) -> LoadResult:
    """Run one load in the current event loop. `content_seed` None: drawn from the system.

    Raises:
        ConfigError: a defect of the endpoint or the load.
    """
    endpoint = target if isinstance(target, Endpoint) else Endpoint(url=target)
    if problems := endpoint.problems() + load.problems():
        raise ConfigError(problems)
    seeds = Seeds(trace=trace_seed, content=secrets.randbits(62) if content_seed is None else content_seed)
    prompts, jobs = Prompts(endpoint.prompt_ids), measure(load, seeds, endpoint, settle_timeout_s)
    try:
        job, addressed = next(jobs)
        while True:
            job, addressed = jobs.send([await run_share(job, addressed, prompts)])
    except StopIteration as end:
        result: LoadResult = end.value
        return result


def auto_processes(loads: Sequence[Load], cpus: int) -> int:
    """Client processes that follow the heaviest load with headroom, at most one per CPU."""
    heaviest = max((_tokens_per_s(load) for load in loads), default=0.0)
    return max(1, min(cpus, math.ceil(heaviest / TOKENS_PER_S_PER_PROCESS)))


def _tokens_per_s(load: Load) -> float:
    output_tokens = sum(load.output_tokens) / 2
    if load.kind == "open" and load.rate_per_s is not None and load.rate_per_s != math.inf:
        return load.rate_per_s * output_tokens
    if load.kind == "max-rate":
        return 4 * (load.rate_per_s or START_PER_S) * output_tokens
    return (load.concurrency or load.num_requests or 1) * TOKENS_PER_S_PER_STREAM


def _clients(loads: Sequence[Load], options: ClientOptions) -> Clients:
    available = len(options.cpus) or os.cpu_count() or 1
    processes = options.processes or auto_processes(loads, available)
    if processes == 1 and not options.prefix:
        return ThreadClient(options.cpus, options.pod)
    enter = () if options.pod is None else options.pod.entrance
    return WorkerClients(processes, options.cpus, (*enter, *options.prefix))
