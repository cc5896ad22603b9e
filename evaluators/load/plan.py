"""Decides which jobs one load takes: a single run, or a search over rates; each followed by a wait for an idle server.

Written as generators that yield jobs and are sent what the client processes saw, so that a thread, worker processes and
an event loop of the caller can all drive them.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from evaluators.load.endpoint import Endpoint
from evaluators.load.generator import Job, ShareResult
from evaluators.load.max_rate import RateSearch
from evaluators.load.metrics import attainment
from evaluators.load.record import Request
from evaluators.load.result import LoadResult, collect
from evaluators.load.workload import Load

START_PER_S = 1.0
"""First rate of a search that names none."""

Jobs = Generator[tuple[Job, Endpoint], list[ShareResult], LoadResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """What makes a load repeatable (trace: arrivals, lengths, sharing) and its prompts fresh (content)."""

    trace: int
    content: int


def measure(load: Load, seeds: Seeds, endpoint: Endpoint, settle_timeout_s: float) -> Jobs:
    """The jobs of one load, whatever its kind."""
    if load.kind == "max-rate":
        return (yield from _search(load, seeds, endpoint, settle_timeout_s))
    return (yield from _once(load, seeds, endpoint, settle_timeout_s))


def warm_up(load: Load, requests: int, content_seed: int, endpoint: Endpoint, tokens: int | None) -> Jobs:
    """Requests of the load's lengths at once, with prompts that no timed request has; hang up after `tokens`."""
    burst = Load(
        name=load.name,
        rate_per_s=math.inf,
        num_requests=requests,
        input_tokens=load.input_tokens,
        output_tokens=load.output_tokens,
        shared_prefix_tokens=load.shared_prefix_tokens,
        num_prefixes=load.num_prefixes,
    )
    job = _job(burst, Seeds(trace=0, content=content_seed), f"{load.name}~warmup", purpose="warmup")
    job = replace(job, enough_tokens=tokens)
    return collect(burst, (yield job, endpoint))


def ask(requests: Sequence[Request], window_s: float, endpoint: Endpoint, *, in_turn: bool) -> Jobs:
    """Given requests, one after the other or all at once; what is unfinished after `window_s` is cut off."""
    load = Load(name="ask", kind="closed", concurrency=1, window_s=window_s)
    load = load if in_turn else replace(load, kind="open", concurrency=None, rate_per_s=math.inf)
    job = Job(load=load, trace_seed=0, content_seed=0, label=load.name, requests=tuple(requests))
    return collect(load, (yield job, endpoint))


def sustained(trial: LoadResult) -> bool:
    """Whether enough of a trial's decided requests kept its service level."""
    slo = trial.load.slo
    return slo is not None and attainment(trial.responses, slo) >= slo.attainment


def _once(load: Load, seeds: Seeds, endpoint: Endpoint, settle_timeout_s: float, label: str | None = None) -> Jobs:
    label = label or load.name
    result = collect(load, (yield _job(load, seeds, label), endpoint))
    if not settle_timeout_s or not result.metrics["censored"]:
        return result
    probe = Load(
        name=load.name, rate_per_s=math.inf, num_requests=1, input_tokens=load.input_tokens, output_tokens=(1, 1)
    )
    job = _job(probe, seeds, f"{label}~settle", purpose="warmup")
    answer = collect(probe, (yield job, replace(endpoint, request_timeout_s=settle_timeout_s)))
    if not answer.errors:
        return result
    late = f"load {load.name!r}: {settle_timeout_s:g} s after its window the server had not answered one more token"
    return replace(
        result, warnings=[*result.warnings, f"{late} ({answer.errors[0].kind})"], flags=result.flags | {"unsettled"}
    )


def _search(load: Load, seeds: Seeds, endpoint: Endpoint, settle_timeout_s: float) -> Jobs:
    least_per_s = 1 / load.window_s if load.window_s else 0.0  # below, most windows see no request
    search, trials = RateSearch(load.rate_per_s or START_PER_S, least_per_s=least_per_s), list[LoadResult]()
    while (rate_per_s := search.next_rate()) is not None:
        trial = replace(load, kind="open", rate_per_s=rate_per_s)
        result = yield from _once(trial, seeds, endpoint, settle_timeout_s, f"{load.name}~{len(trials)}")
        search.record(rate_per_s, sustained(result))
        trials.append(result)
    return _best(load, search, trials)


def _best(load: Load, search: RateSearch, trials: Sequence[LoadResult]) -> LoadResult:
    """The trial at the highest rate that passed, with what the search found; when none did, the lowest rate that was
    answered at all."""
    by_rate = sorted(trials, key=lambda trial: trial.load.rate_per_s or 0.0)
    passed = [trial for trial in by_rate if sustained(trial)]
    answered = [trial for trial in by_rate if trial.metrics["total_output_tokens"]]
    chosen = passed[-1] if passed else (answered or by_rate)[0]
    found = {"max_rate_per_s": search.passed_per_s or 0.0, "trials": float(len(trials))}
    warnings = list(chosen.warnings)
    if search.failed_per_s is not None:
        found["lowest_failed_rate_per_s"] = search.failed_per_s
    else:
        warnings.append(
            f"load {load.name!r}: every rate up to {search.passed_per_s:.3g}/s passed; start the search higher"
        )
    if not passed:
        warnings.append(f"load {load.name!r}: no rate kept the service level, down to {chosen.load.rate_per_s:.3g}/s")
    flags = frozenset[str]().union(*(trial.flags for trial in trials))
    return replace(chosen, load=load, metrics=chosen.metrics | found, warnings=warnings, flags=flags)


def _job(load: Load, seeds: Seeds, label: str, purpose: str = "timed") -> Job:
    return Job(load=load, trace_seed=seeds.trace, content_seed=seeds.content, label=label, purpose=purpose)
