"""Decides what is measured: loads in repeats, again where neighbours disturbed them, fewer where the race is lost."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from evaluators.gpu_noise import foreign_gpu_processes
from evaluators.load.record import Response
from evaluators.load.session import LoadSession
from evaluators.load.workload import Load
from evaluators.noise import CpuMeter
from evaluators.probes import Probing
from evaluators.repeat import Repeat, protocol_fault, readings, rejection, repeat_json
from evaluators.server import ServerUnderTest
from population.errors import ConfigError
from population.evaluation import Rejected, Stage
from population.objectives import ObjectiveSet, objective_samples
from population.statistics import estimate

NOISE_RETRIES = 2
"""How often in all a disturbed repeat is measured again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure and when to stop."""

    objectives: ObjectiveSet
    repeats: int
    warmup_requests: int
    warmup_tokens: int | None = None
    trace_seed: int
    content_seed: int
    bar: tuple[tuple[float, ...], ...] = ()
    cpus: tuple[int, ...] = ()
    """The lease's CPUs, on which others' work is noise."""
    gpus: tuple[str, ...] = ()
    """The lease's GPUs, likewise."""
    noise_retries: int = NOISE_RETRIES
    best: Mapping[str, float] = field(default_factory=dict)
    """Per metric what no server can beat (`evaluators/roofline.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What came of it: one value per repeat and metric, and the answers for the audit."""

    samples: Mapping[str, tuple[float, ...]]
    flags: frozenset[str] = frozenset()
    responses: tuple[Response, ...] = ()
    report: tuple[Mapping[str, object], ...] = ()
    """Per repeat, for `benchmark.json`."""


def measure(server: ServerUnderTest, session: LoadSession, loads: Sequence[Load], plan: Plan) -> Measurement | Rejected:
    """Warm up, then run the session's loads `plan.repeats` times.

    Metrics are named `metric@load`, and without the suffix too if there is one load only. Every repeat also records
    `cpu_ms_per_token` of the server and `foreign_cpu_share`, which show a drift that latencies alone would hide.

    Raises:
        InfrastructureError: a client process died.
    """
    benchmark = _Benchmark(server, session, loads, plan)
    if (rejected := benchmark.warm_up()) is not None:
        return rejected
    kept: list[Repeat] = []
    samples: dict[str, tuple[float, ...]] = {}
    short = False
    while len(kept) < plan.repeats and not short:
        repeat = benchmark.quiet_repeat()
        if isinstance(repeat, Rejected):
            return _with_last_words(repeat, server)
        values = readings(repeat, plan.best)
        if isinstance(values, Rejected):
            return _with_last_words(values, server)
        kept.append(repeat)
        samples = _pool(samples, values, len(kept))
        if (missing := missing_objectives(plan.objectives, samples)) is not None:
            return _with_last_words(missing, server)
        quiet = not any(r.noisy for r in kept)
        short = len(kept) < plan.repeats and quiet and beaten(plan.objectives, samples, plan.bar)
    return benchmark.asked_again(_measurement(kept, samples, short), kept[-1])


def missing_objectives(objectives: ObjectiveSet, samples: Mapping[str, Sequence[float]]) -> Rejected | None:
    """A rejection if an objective has no value, say because no answer had a second token to time."""
    try:
        for objective in objectives:
            objective_samples(objective, samples)
    except ConfigError as error:
        return Rejected(stage=Stage.BENCHMARK, reason=str(error))
    return None


def beaten(objectives: ObjectiveSet, samples: Mapping[str, Sequence[float]], bar: Sequence[Sequence[float]]) -> bool:
    """Whether even the optimistic ends of the intervals are dominated by a row of `bar` (costs, minimised).

    For quiet repeats only: a neighbour makes any candidate look beaten.
    """
    if not bar:
        return False
    estimates = {o.name: estimate(objective_samples(o, samples), o.relative_noise) for o in objectives}
    optimistic, _ = objectives.cost_bounds(estimates)
    rows = np.asarray(bar, dtype=np.float64)
    return bool(((rows <= optimistic).all(axis=1) & (rows < optimistic).any(axis=1)).any())


def _measurement(kept: Sequence[Repeat], samples: Mapping[str, tuple[float, ...]], short: bool) -> Measurement:
    flags = {flag for repeat in kept for result in repeat.results for flag in result.flags}
    flags |= {"noisy"} if any(repeat.noisy for repeat in kept) else set()
    flags |= {"short"} if short else set()
    responses = [
        replace(response, id=f"{number}:{response.id}")
        for number, repeat in enumerate(kept)
        for result in repeat.results
        for response in result.responses
    ]
    return Measurement(
        samples=samples,
        flags=frozenset(flags),
        responses=tuple(responses),
        report=tuple(repeat_json(repeat) for repeat in kept),
    )


class _Benchmark:
    """One server, one session, and the retries that are left."""

    def __init__(self, server: ServerUnderTest, session: LoadSession, loads: Sequence[Load], plan: Plan) -> None:
        self._server = server
        self._session = session
        self._loads = loads
        self._plan = plan
        self._retries_left = plan.noise_retries
        self._draws = 0

    def warm_up(self) -> Rejected | None:
        if not self._plan.warmup_requests:
            return None
        plan, seed = self._plan, self._content_seed()
        result = self._session.warm_up(self._loads[0], plan.warmup_requests, seed, plan.warmup_tokens)
        if (crash := self._server.crash()) is not None:
            return replace(crash, reason=f"{crash.reason} during warm-up")
        if not any(response.tokens for response in result.responses):
            silent = rejection(f"no verified token came for {len(result.responses)} warm-up requests", result.errors)
            return protocol_fault(result.responses, "the warm-up") or silent
        return None

    def quiet_repeat(self) -> Repeat | Rejected:
        """One repeat; measured again while others disturb it and retries are left, and then the quietest of them."""
        best = self._repeat()
        while not isinstance(best, Rejected) and best.noisy and self._retries_left:
            self._retries_left -= 1
            again = self._repeat()
            if isinstance(again, Rejected):
                return again
            best = min(best, again, key=lambda repeat: repeat.disturbance)
        return best

    def _repeat(self) -> Repeat | Rejected:
        seed, results = self._content_seed(), []
        meter = CpuMeter(self._plan.cpus, self._server.process.supervisor_pid)
        for load in self._loads:
            result = self._session.run(load, self._plan.trace_seed, seed)
            if (crash := self._server.crash()) is not None:
                return replace(crash, reason=f"{crash.reason} during load '{load.name}'")
            results.append(result)
        foreign_gpu = foreign_gpu_processes(self._plan.gpus, self._server.process.supervisor_pid)
        return Repeat(results=tuple(results), window=meter.read(), foreign_gpu=foreign_gpu)

    def asked_again(self, measured: Measurement, last: Repeat) -> Measurement | Rejected:
        """With the answers to some prompts that were asked again, for the audit."""
        probing = Probing(session=self._session, loads=self._loads, seed=self._content_seed())
        answers = probing.ask_again(measured.responses, sum(r.metrics["duration"] for r in last.results))
        if (crash := self._server.crash()) is not None:
            return replace(crash, reason=f"{crash.reason} after the loads")
        return answers if isinstance(answers, Rejected) else replace(measured, responses=answers)

    def _content_seed(self) -> int:
        """Fresh for every warm-up and repeat: no prompt is ever sent twice."""
        self._draws += 1
        return int.from_bytes(hashlib.sha256(f"{self._plan.content_seed}/{self._draws}".encode()).digest()[:7], "big")


def _with_last_words(rejected: Rejected, server: ServerUnderTest) -> Rejected:
    """The server's last words, where the client saw nothing but silence."""
    return rejected if rejected.evidence else replace(rejected, evidence=server.process.log_tail(20))


def _pool(
    samples: Mapping[str, tuple[float, ...]], values: Mapping[str, float], repeats: int
) -> dict[str, tuple[float, ...]]:
    """`values` appended; a metric that some repeat lacks is dropped, so that all have one value per repeat."""
    if repeats == 1:
        return {name: (value,) for name, value in values.items()}
    return {name: (*before, values[name]) for name, before in samples.items() if name in values}
