"""Decides what a caller learns of one load: metrics, every response, and what to distrust; and its JSON form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.load.generator import ShareResult
from evaluators.load.metrics import percentile, summarise
from evaluators.load.record import Response
from evaluators.load.workload import Load

BUSY_SHARE = 0.8
"""Share of one core above which a client process delays what it measures."""
SEND_LAG_MS = 20.0
"""p99 of the delay of scheduled requests above which the client did not offer the load it claims."""
SHORTEST_S = 0.25
"""A run shorter than this says nothing about the client's load."""
EVIDENCE = 3
"""Examples kept per kind of failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """All failures of one kind, with the first few distinct pieces of evidence."""

    kind: str
    count: int
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What one load measured."""

    load: Load
    metrics: dict[str, float]
    """By name without `@load`; latencies are inf where failures decide them. Names as in `vllm bench serve`, and our
    own."""
    responses: list[Response]
    """Every request that was sent, in order, with its prompt and output ids."""
    warnings: list[str]
    errors: list[ErrorGroup]
    flags: frozenset[str]
    """What a reader must know: client_bound, unverified_tokens, retokenized, nothing_completed, unsettled."""

    @property
    def failed(self) -> int:
        """Requests that failed."""
        return sum(group.count for group in self.errors)


def collect(load: Load, shares: Sequence[ShareResult], extra: dict[str, float] | None = None) -> LoadResult:
    """One result from what the client processes saw."""
    responses = sorted((r for share in shares for r in share.responses), key=lambda r: (r.sent_s, r.id))
    wall_s = max(share.wall_s for share in shares)
    lags_ms = sorted(lag * 1e3 for share in shares for lag in share.send_lag_s)
    metrics = summarise(load, responses, wall_s) | (extra or {})
    metrics["client_cpu_share"] = max(share.cpu_s / share.wall_s if share.wall_s > 0 else 0.0 for share in shares)
    metrics["client_cpu_s"] = sum(share.cpu_s for share in shares)
    metrics["client_processes"] = float(len(shares))
    metrics["max_send_lag_ms"] = lags_ms[-1] if lags_ms else 0.0
    metrics["p99_send_lag_ms"] = percentile(lags_ms, 99) if lags_ms else 0.0
    flags, warnings = _distrust(load, metrics, responses)
    return LoadResult(
        load=load,
        metrics=metrics,
        responses=responses,
        warnings=warnings,
        errors=error_groups(responses),
        flags=frozenset(flags),
    )


def error_groups(responses: Sequence[Response]) -> list[ErrorGroup]:
    """Failures by kind, most frequent first."""
    kinds: dict[str, list[str]] = {}
    for response in responses:
        if response.failure is not None:
            kinds.setdefault(response.failure.kind, []).append(f"{response.id}: {response.failure.evidence}")
    groups = [ErrorGroup(kind=kind, count=len(seen), evidence=_distinct(seen)) for kind, seen in kinds.items()]
    return sorted(groups, key=lambda group: (-group.count, group.kind))


def _distinct(seen: Sequence[str]) -> tuple[str, ...]:
    by_reason = {text.partition(": ")[2]: text for text in reversed(seen)}
    return tuple(list(reversed(by_reason.values()))[:EVIDENCE])


def _distrust(load: Load, metrics: dict[str, float], responses: Sequence[Response]) -> tuple[set[str], list[str]]:
    flags, warnings = set(), []
    if metrics["client_cpu_share"] > BUSY_SHARE and metrics["duration"] >= SHORTEST_S:
        flags.add("client_bound")
        warnings.append(
            f"load {load.name!r}: the client used {metrics['client_cpu_share']:.0%} of a core and may be "
            f"the bottleneck; use more client processes (now {metrics['client_processes']:g})"
        )
    if metrics["p99_send_lag_ms"] > SEND_LAG_MS and load.rate_per_s != math.inf:
        flags.add("client_bound")
        warnings.append(
            f"load {load.name!r}: requests left {metrics['p99_send_lag_ms']:.0f} ms late (p99; "
            f"limit {SEND_LAG_MS:g} ms): the client's CPU is overloaded or shared with other work"
        )
    counted = {response.counted_by for response in responses if response.first_s is not None}
    if "usage" in counted:
        flags.add("unverified_tokens")
        warnings.append(
            f"load {load.name!r}: the server returns no token ids and no vocabulary is known; "
            "its own usage was believed"
        )
    if "text" in counted:
        flags.add("retokenized")
    if responses and not metrics["completed"]:
        flags.add("nothing_completed")
        warnings.append(f"load {load.name!r}: no request was completed; latencies are lower bounds or infinite")
    return flags, warnings


def metrics_json(metrics: dict[str, float]) -> dict[str, Any]:
    """Strict JSON: whole numbers as int; what is not finite as null, with the reason under `explanations`."""
    out: dict[str, Any] = {}
    explanations: dict[str, str] = {}
    for name, value in metrics.items():
        if math.isfinite(value):
            out[name] = int(value) if name in _COUNTS else value
        else:
            out[name] = None
            explanations[name] = "infinite: failed requests count as infinite latency" if value > 0 else "undefined"
    return out | ({"explanations": explanations} if explanations else {})


def result_json(result: LoadResult, *, detailed: bool = False) -> dict[str, Any]:
    """The object of `vllm bench serve --save-result` and our own fields; `detailed` adds vLLM's per-request lists."""
    out = {
        "load": result.load.name,
        "num_prompts": len(result.responses),
        "request_rate": _finite(result.load.rate_per_s),
        "burstiness": _finite(result.load.burstiness),
        "max_concurrency": result.load.concurrency,
    }
    out |= metrics_json(result.metrics)
    out["warnings"] = list(result.warnings)
    out["flags"] = sorted(result.flags)
    out["errors_by_kind"] = [{"kind": g.kind, "count": g.count, "evidence": list(g.evidence)} for g in result.errors]
    if detailed:
        answers = result.responses
        out["input_lens"] = [len(r.prompt_ids) for r in answers]
        out["output_lens"] = [r.tokens for r in answers]
        out["ttfts"] = [None if r.first_s is None else r.first_s - r.sent_s for r in answers]
        out["itls"] = [[b - a for a, b in zip(r.chunk_s, r.chunk_s[1:], strict=False)] for r in answers]
        out["errors"] = ["" if r.failure is None else f"{r.failure.kind}: {r.failure.evidence}" for r in answers]
    return out


def _finite(value: float | None) -> float | str | None:
    return "inf" if value is not None and math.isinf(value) else value


_COUNTS = frozenset(
    ("completed", "failed", "censored", "total_input_tokens", "total_output_tokens", "client_processes", "trials")
)
