"""Metrics of known responses."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.load.generator import ShareResult
from evaluators.load.metrics import Latency, attainment, distribution, product_limit, summarise, tpot, ttft
from evaluators.load.record import Failure, Response, write_log
from evaluators.load.result import collect, metrics_json, result_json
from evaluators.load.verify import Retokenizer, apportion
from evaluators.load.workload import Load, Slo

LOAD = Load(name="x", rate_per_s=1.0, window_s=10.0)


def answered(sent_s: float, first_s: float, per_token_s: float, tokens: int = 11, **change: object) -> Response:
    chunks = [round(first_s + k * per_token_s, 9) for k in range(tokens)]
    response = Response(
        id=f"x/{sent_s}",
        load="x",
        purpose="timed",
        prompt_ids=[1, 2, 3],
        max_tokens=tokens,
        output_ids=list(range(tokens)),
        text="",
        scheduled_s=sent_s,
        sent_s=sent_s,
        first_s=chunks[0] if chunks else None,
        last_s=chunks[-1] if chunks else None,
        chunk_s=chunks,
        chunk_tokens=[1] * tokens,
        finish_reason="length",
        end_s=chunks[-1] if chunks else sent_s,
    )
    return replace(response, **change)


def cut_off(sent_s: float, first_s: float, per_token_s: float, tokens: int, asked: int = 11) -> Response:
    return answered(
        sent_s, first_s, per_token_s, tokens, censored=True, end_s=10.0, max_tokens=asked, finish_reason=None
    )


def failed(sent_s: float) -> Response:
    return answered(sent_s, 0.0, 0.0, 0, failure=Failure(kind="http-status", evidence="500"), end_s=sent_s + 0.1)


def test_the_definitions() -> None:
    metrics = summarise(LOAD, [answered(1.0, 1.5, 0.1), answered(2.0, 2.3, 0.05)], 99.0)
    assert metrics["completed"] == 2
    assert metrics["duration"] == 10.0
    assert metrics["output_throughput"] == pytest.approx(2.2)
    assert metrics["total_token_throughput"] == pytest.approx(2.8)
    assert metrics["mean_ttft_ms"] == pytest.approx(400)
    assert metrics["mean_tpot_ms"] == pytest.approx(75)
    assert metrics["median_itl_ms"] == pytest.approx(75)
    assert metrics["mean_e2el_ms"] == pytest.approx((1500 + 800) / 2)
    assert "request_goodput" not in metrics


def test_only_tokens_inside_the_window_count() -> None:
    metrics = summarise(LOAD, [answered(9.0, 9.55, 0.1)], 99.0)
    assert metrics["total_output_tokens"] == 5
    assert summarise(replace(LOAD, window_s=None), [answered(9.0, 9.55, 0.1)], 20.0)["output_throughput"] == 11 / 20


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40))
def test_without_bounds_it_is_numpy(values: list[float]) -> None:
    metrics = distribution("ttft", [Latency(ms=value) for value in values])
    assert metrics["median_ttft_ms"] == pytest.approx(np.median(values))
    assert metrics["p90_ttft_ms"] == pytest.approx(np.percentile(values, 90))
    assert metrics["mean_ttft_ms"] == pytest.approx(np.mean(values))
    assert metrics["std_ttft_ms"] == pytest.approx(np.std(values), abs=1e-3)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.booleans()), min_size=1, max_size=40))
def test_the_product_limit_is_a_distribution_that_bounds_never_lower(pairs: list[tuple[float, bool]]) -> None:
    latencies = [Latency(ms=ms, bound=bound) for ms, bound in pairs]
    values, weights = product_limit(latencies)
    assert math.fsum(weights) == pytest.approx(1)
    assert math.fsum(v * w for v, w in zip(values, weights, strict=True)) >= np.mean(values) - 1e-6


def test_the_product_limit_of_a_known_sample() -> None:
    """1, 2 (bound), 3, 4 (bound), 5: survival 0.8, 0.8·2/3 = 0.533, 0 (Kaplan and Meier by hand)."""
    sample = [Latency(ms=float(ms), bound=ms in (2, 4)) for ms in range(1, 6)]
    assert product_limit(sample)[1] == pytest.approx([0.2, 0, 0.8 / 3, 0, 1.6 / 3])


def test_late_requests_do_not_flatter() -> None:
    served = [answered(at, at + 1.0, 0.01) for at in range(8)]
    latest = [cut_off(9.9 + k / 100, 0.0, 0.0, 0) for k in range(6)]
    assert summarise(LOAD, served + latest, 10)["median_ttft_ms"] == pytest.approx(1000)


def test_a_server_that_answers_few_does_not_look_fast() -> None:
    answers = [answered(0.0, 0.01, 0.01)] + [cut_off(at / 10, 0.0, 0.0, 0) for at in range(1, 90)]
    assert summarise(LOAD, answers, 10)["median_ttft_ms"] == pytest.approx(9900)


def test_a_cut_off_stream_has_waited_for_its_next_token() -> None:
    stalled = tpot(cut_off(0.0, 1.0, 0.1, 4))
    assert stalled == Latency(ms=2250.0, bound=True)
    steady = tpot(cut_off(9.0, 9.0, 0.1, 9))
    assert steady is not None
    assert steady.ms == pytest.approx(1000 / 9)
    assert not steady.bound


def test_failures_are_infinite_and_json_is_strict(tmp_path: object) -> None:
    responses = [answered(1.0, 1.5, 0.1), failed(2.0), failed(3.0)]
    result = collect(LOAD, [ShareResult(responses=responses, wall_s=10.0, cpu_s=0.1, send_lag_s=[])])
    assert result.metrics["median_ttft_ms"] == math.inf
    assert result.metrics["failed"] == 2
    assert result.metrics["total_output_tokens"] == 11
    raw = json.loads(json.dumps(result_json(result, detailed=True), allow_nan=False))
    assert raw["median_ttft_ms"] is None
    assert "infinite" in raw["explanations"]["median_ttft_ms"]
    assert raw["errors_by_kind"] == [{"kind": "http-status", "count": 2, "evidence": ["x/2.0: 500"]}]
    assert raw["completed"] == 1
    assert isinstance(raw["completed"], int)


def test_one_failure_leaves_the_median_alone() -> None:
    responses = [answered(at, at + 0.2, 0.1) for at in range(9)] + [failed(9.0)]
    metrics = summarise(LOAD, responses, 10)
    assert metrics["median_ttft_ms"] == pytest.approx(200)
    assert metrics["mean_ttft_ms"] == metrics["p99_ttft_ms"] == math.inf
    assert metrics_json(metrics)["mean_ttft_ms"] is None


def test_goodput_and_attainment() -> None:
    slo = Slo(ttft_ms=300, tpot_ms=60)
    good, slow_first, slow_tokens = answered(1, 1.2, 0.05), answered(1, 1.5, 0.05), answered(1, 1.2, 0.1)
    undecided = cut_off(9.9, 0.0, 0.0, 0)
    responses = [good, slow_first, slow_tokens, undecided]
    assert summarise(replace(LOAD, slo=slo), responses, 10)["request_goodput"] == pytest.approx(0.1)
    assert attainment(responses, slo) == pytest.approx(1 / 3)
    assert attainment([cut_off(1.0, 0.0, 0.0, 0)], slo) == 0.0


def test_the_client_says_when_it_is_the_bottleneck() -> None:
    share = ShareResult(responses=[answered(1, 1.2, 0.1)], wall_s=10.0, cpu_s=9.0, send_lag_s=[0.0])
    busy = collect(LOAD, [share])
    assert "client_bound" in busy.flags
    assert "90%" in busy.warnings[0]
    late = collect(LOAD, [replace(share, cpu_s=1.0, send_lag_s=[0.5])])
    assert "client_bound" in late.flags
    assert late.metrics["max_send_lag_ms"] == pytest.approx(500)
    assert not collect(LOAD, [replace(share, cpu_s=1.0)]).flags


def test_the_log_reads_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    responses = [failed(2.0), answered(1.0, 1.5, 0.1)]
    write_log(tmp_path / "log.jsonl", responses)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [Response.from_json(json.loads(line)) for line in lines] == responses[::-1]


def test_counting_without_ids() -> None:
    assert Retokenizer([" a", " ab", "c"]).count(" ab a?c") == 4
    assert apportion(10, [1, 1, 2]) == [2, 3, 5]
    assert ttft(cut_off(9.0, 0.0, 0.0, 0)) == Latency(ms=1000.0, bound=True)
