"""Decides what the responses of one load amount to; metrics are named as in `vllm bench serve`.

Fixed windows cut requests off. Throughput counts the verified tokens that arrived inside the window. A cut-off
request's latency is a lower bound, and enters as one: by the product-limit estimate (Kaplan and Meier 1958), which
gives its weight to the longer latencies that were seen; the longest counts as seen even if it is a bound (Efron
1967). So the last requests of a window do not make a server look faster than it is, and one that leaves most requests
unanswered does not look better for it. Failed requests have infinite latency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.load.record import Response
from evaluators.load.workload import Load, Slo

PERCENTILES = (50, 90, 95, 99)
SETTLED_FRACTION = 0.5
"""A cut-off request that got this much of its answer has a TPOT of its own; before that it is only a bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One request's latency in milliseconds; `bound`: it is at least that."""

    ms: float
    bound: bool = False


def summarise(load: Load, responses: Sequence[Response], wall_s: float) -> dict[str, float]:
    """Metrics of one load by name; latencies may be inf, a metric without data is absent."""
    timed = [response for response in responses if response.purpose != "warmup"]
    duration_s = load.window_s if load.window_s is not None else wall_s
    completed = [response for response in timed if response.completed]
    valid = [response for response in timed if response.failure is None]
    output_tokens = sum(tokens_until(response, duration_s) for response in valid)
    input_tokens = sum(len(response.prompt_ids) for response in valid if response.first_s is not None)
    metrics = {
        "duration": duration_s,
        "completed": float(len(completed)),
        "failed": float(sum(response.failure is not None for response in timed)),
        "censored": float(sum(response.censored and response.failure is None for response in timed)),
        "total_input_tokens": float(input_tokens),
        "total_output_tokens": float(output_tokens),
        "request_throughput": len(completed) / duration_s,
        "output_throughput": output_tokens / duration_s,
        "total_token_throughput": (input_tokens + output_tokens) / duration_s,
    }
    for name, latencies in (
        ("ttft", [ttft(response) for response in timed]),
        ("tpot", [value for response in timed if (value := tpot(response)) is not None]),
        ("itl", [Latency(ms=gap) for response in valid for gap in chunk_gaps_ms(response)]),
        ("e2el", [e2el(response) for response in timed]),
    ):
        metrics |= distribution(name, latencies)
    if load.slo is not None:
        good = sum(response.completed and meets(response, load.slo) is True for response in timed)
        metrics["request_goodput"] = good / duration_s
    return metrics


def tokens_until(response: Response, end_s: float) -> int:
    """Verified tokens that arrived by `end_s`."""
    return sum(n for at, n in zip(response.chunk_s, response.chunk_tokens, strict=True) if at <= end_s)


def ttft(response: Response) -> Latency:
    """Send to first verified token."""
    if response.failure is not None:
        return Latency(ms=math.inf)
    if response.first_s is None:
        return Latency(ms=(response.end_s - response.sent_s) * 1e3, bound=True)
    return Latency(ms=(response.first_s - response.sent_s) * 1e3)


def e2el(response: Response) -> Latency:
    """Send to last token, as vLLM has it."""
    if response.failure is not None:
        return Latency(ms=math.inf)
    if response.censored or response.last_s is None:
        return Latency(ms=(response.end_s - response.sent_s) * 1e3, bound=True)
    return Latency(ms=(response.last_s - response.sent_s) * 1e3)


def tpot(response: Response) -> Latency | None:
    """(E2EL - TTFT) / (n - 1); None where a request has no second token to time.

    A cut-off request with n tokens has waited `end - first` for n more: at least that much each.
    """
    if response.failure is not None:
        return Latency(ms=math.inf)
    tokens, first_s, last_s = response.tokens, response.first_s, response.last_s
    if first_s is None or last_s is None or (response.completed and tokens < 2):
        return None
    seen_ms = (last_s - first_s) / (tokens - 1) * 1e3 if tokens > 1 else 0.0
    if response.completed:
        return Latency(ms=seen_ms)
    reached_ms = max(seen_ms, (response.end_s - first_s) / tokens * 1e3)
    return Latency(ms=reached_ms, bound=tokens < 2 or tokens < SETTLED_FRACTION * response.max_tokens)


def only_bounds(responses: Sequence[Response]) -> frozenset[str]:
    """Which of `ttft`, `tpot`, `e2el` were cut off in every request: what the metrics say of them is too little."""
    timed = [response for response in responses if response.purpose != "warmup"]
    of: dict[str, Sequence[Latency | None]] = {
        "ttft": [ttft(response) for response in timed],
        "tpot": [tpot(response) for response in timed],
        "e2el": [e2el(response) for response in timed],
    }
    return frozenset(name for name, seen in of.items() if all(one is None or one.bound for one in seen))


def chunk_gaps_ms(response: Response) -> list[float]:
    """Inter-token latency as vLLM takes it: the gaps between chunks."""
    return [(b - a) * 1e3 for a, b in zip(response.chunk_s, response.chunk_s[1:], strict=False)]


def meets(response: Response, slo: Slo) -> bool | None:
    """Whether a request kept the service level; None when it was cut off before that could be known."""
    decided = True
    for limit_ms, latency in (
        (slo.ttft_ms, ttft(response)),
        (slo.tpot_ms, tpot(response)),
        (slo.e2el_ms, e2el(response)),
    ):
        if limit_ms is None or latency is None:
            continue
        if latency.ms > limit_ms:
            return False
        decided = decided and not latency.bound
    return True if decided and (response.completed or slo.e2el_ms is None) else None


def attainment(responses: Sequence[Response], slo: Slo) -> float:
    """Fraction of the decided requests that kept the service level; 0 when none was decided."""
    verdicts = [verdict for response in responses if (verdict := meets(response, slo)) is not None]
    return sum(verdicts) / len(verdicts) if verdicts else 0.0


def distribution(name: str, latencies: Sequence[Latency]) -> dict[str, float]:
    """mean, median, std and percentiles in ms; nothing at all for no data."""
    if not latencies:
        return {}
    values, weights = product_limit(latencies)
    mean = math.fsum(v * w for v, w in zip(values, weights, strict=True) if w)
    spread = (
        math.inf
        if math.isinf(mean)
        else math.sqrt(math.fsum(w * (v - mean) ** 2 for v, w in zip(values, weights, strict=True)))
    )
    exact = not any(latency.bound for latency in latencies)
    result = {f"mean_{name}_ms": mean}
    for percent in PERCENTILES:
        key = "median" if percent == 50 else f"p{percent}"
        result[f"{key}_{name}_ms"] = (
            percentile(values, percent) if exact else weighted_percentile(values, weights, percent)
        )
    return result | {f"std_{name}_ms": spread}


def product_limit(latencies: Sequence[Latency]) -> tuple[list[float], list[float]]:
    """Sorted values and the probability of each: 1/n for all when none is a bound.

    Each bound hands its weight to everything longer ("redistribute to the right"); seen values precede equal bounds.
    """
    ordered = sorted(latencies, key=lambda latency: (latency.ms, latency.bound))
    values, weights, weight = [], [], 1 / len(ordered)
    for place, latency in enumerate(ordered):
        longer = len(ordered) - place - 1
        values.append(latency.ms)
        if latency.bound and longer:
            weights.append(0.0)
            weight += weight / longer
        else:
            weights.append(weight)
    return values, weights


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear interpolation between sorted values, as numpy and vLLM have it; inf wins over interpolation."""
    at = (len(values) - 1) * percent / 100
    low, high = values[math.floor(at)], values[math.ceil(at)]
    return low if at == math.floor(at) or low == high else low + (high - low) * (at - math.floor(at))


def weighted_percentile(values: Sequence[float], weights: Sequence[float], percent: float) -> float:
    """Smallest value with at least this share of the weight at or below it."""
    reached, total = 0.0, math.fsum(weights)
    for value, weight in zip(values, weights, strict=True):
        reached += weight
        if weight and reached >= total * percent / 100 - 1e-12:
            return value
    return values[-1]
