"""Schedules, contents and the definition of a load."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.load.endpoint import Endpoint
from evaluators.load.generator import Job, Share
from evaluators.load.max_rate import RateSearch
from evaluators.load.schedule import Prompts, Trace
from evaluators.load.workload import LOAD_KEYS, Load, Slo
from population.errors import ConfigError

OPEN = Load(name="high", rate_per_s=24.0, window_s=4.0)


def prompts_of(
    load: Load, trace_seed: int = 1, content_seed: int = 2, share: tuple[int, int] = (0, 1)
) -> list[list[int]]:
    job = Job(load=load, trace_seed=trace_seed, content_seed=content_seed, label=load.name, share=share)
    prepared = Share(job, Endpoint(url="http://127.0.0.1:1"), Prompts((100, 8000)))
    return [exchange.request.prompt_ids for _, exchange in reversed(prepared._ready)]


def test_a_table_becomes_a_load() -> None:
    table = {"name": "a", "kind": "max-rate", "window_s": 2, "input_tokens": [24, 40], "slo": {"ttft_ms": 100}}
    load = Load.from_table(table)
    assert load.input_tokens == (24, 40)
    assert load.slo == Slo(ttft_ms=100)
    assert load.problems() == []
    assert "shared_prefix_tokens" in LOAD_KEYS


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"name": "a@b"}, "name"),
        ({"kind": "burst"}, "kind"),
        ({"rate_per_s": None}, "rate_per_s"),
        ({"rate_per_s": True}, "rate_per_s"),
        ({"rate_per_s": math.nan}, "rate_per_s"),
        ({"rate_per_s": math.inf}, "fixed window"),
        ({"concurrency": 4}, "concurrency"),
        ({"kind": "closed", "rate_per_s": None}, "concurrency"),
        ({"kind": "max-rate"}, "slo"),
        ({"num_requests": 4}, "exactly one"),
        ({"window_s": None}, "exactly one"),
        ({"window_s": -1}, "window_s"),
        ({"input_tokens": (3, 2)}, "input_tokens"),
        ({"output_tokens": (0, 2)}, "output_tokens"),
        ({"output_tokens": "64"}, "output_tokens"),
        ({"turns": 0}, "turns"),
        ({"num_prefixes": 0}, "num_prefixes"),
        ({"shared_prefix_tokens": -1}, "shared_prefix_tokens"),
        ({"burstiness": 0}, "burstiness"),
        ({"slo": Slo()}, "at least one"),
        ({"slo": Slo(ttft_ms=1, attainment=2)}, "attainment"),
    ],
)
def test_each_defect_is_named(change: dict[str, object], word: str) -> None:
    problems = replace(OPEN, **change).problems()
    assert any(word in text for text in problems), problems


@given(
    rate=st.floats(0.5, 200),
    window_s=st.floats(0.5, 20),
    shape=st.sampled_from([0.3, 1.0, 4.0, math.inf]),
    seed=st.integers(0, 2**62),
)
@settings(max_examples=60, deadline=None)
def test_a_window_gets_exactly_its_rate(rate: float, window_s: float, shape: float, seed: int) -> None:
    load = replace(OPEN, rate_per_s=rate, window_s=window_s, burstiness=shape)
    arrivals = [session.arrival_s for session in Trace(load, seed).sessions()]
    assert len(arrivals) == max(1, round(rate * window_s))
    assert arrivals == sorted(arrivals)
    assert arrivals[0] >= 0
    assert arrivals[-1] <= window_s
    assert arrivals == [session.arrival_s for session in Trace(load, seed).sessions()]


def test_without_a_window_the_last_arrival_is_at_n_over_rate() -> None:
    load = replace(OPEN, window_s=None, num_requests=50)
    assert Trace(load, 3).arrivals(50)[-1] == pytest.approx(50 / 24)
    assert Trace(replace(load, rate_per_s=math.inf), 3).arrivals(5) == [0.0] * 5


def test_burstiness_is_the_gamma_shape() -> None:
    def variation(shape: float) -> float:
        arrivals = Trace(replace(OPEN, burstiness=shape, window_s=None, num_requests=4000), 7).arrivals(4000)
        gaps = [b - a for a, b in zip([0.0, *arrivals], arrivals, strict=False)]
        mean = sum(gaps) / len(gaps)
        return math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) / mean

    for shape in (0.25, 1.0, 4.0):
        assert variation(shape) == pytest.approx(1 / math.sqrt(shape), rel=0.1)
    assert variation(math.inf) == pytest.approx(0.0, abs=1e-6)


def test_trace_and_content_seeds_are_apart() -> None:
    load = replace(OPEN, input_tokens=(4, 60))
    first, again, other_content, other_trace = (
        prompts_of(load),
        prompts_of(load),
        prompts_of(load, content_seed=3),
        prompts_of(load, trace_seed=9),
    )
    assert first == again
    assert [len(p) for p in first] == [len(p) for p in other_content]
    assert not {tuple(p) for p in first} & {tuple(p) for p in other_content}
    assert [len(p) for p in first] != [len(p) for p in other_trace]


def test_shares_partition_the_plan() -> None:
    whole = prompts_of(OPEN)
    parts = [prompts_of(OPEN, share=(number, 3)) for number in range(3)]
    assert sorted(p for part in parts for p in part) == sorted(whole)


def test_prefixes_are_shared_and_fresh_per_content_seed() -> None:
    load = replace(OPEN, shared_prefix_tokens=16, num_prefixes=3, input_tokens=(8, 8))
    prompts = prompts_of(load)
    prefixes = {tuple(p[:16]) for p in prompts}
    assert len(prefixes) == 3
    assert len({tuple(p) for p in prompts}) == len(prompts) == 96
    assert not prefixes & {tuple(p[:16]) for p in prompts_of(load, content_seed=5)}


def test_no_prompt_repeats_even_with_the_same_key() -> None:
    prompts = Prompts((1, 9))
    drawn = [tuple(prompts.extend([], 2, "same")) for _ in range(30)]
    assert len(set(drawn)) == 30


def test_too_small_a_prompt_space_is_refused() -> None:
    prompts = Prompts((1, 2))
    assert sorted(prompts.extend([], 1, "key") + prompts.extend([], 1, "key")) == [1, 2]
    with pytest.raises(ConfigError, match="not sent before"):
        prompts.extend([], 1, "key")


@given(capacity=st.floats(0.05, 500), start=st.floats(0.5, 20))
@settings(max_examples=100, deadline=None)
def test_the_search_brackets_the_limit(capacity: float, start: float) -> None:
    search = RateSearch(start, trials=40)
    while (rate := search.next_rate()) is not None:
        search.record(rate, rate <= capacity)
    assert search.passed_per_s is not None
    assert search.passed_per_s <= capacity <= search.passed_per_s * 1.08


def test_the_search_for_a_rate_ends_where_a_window_sees_no_request() -> None:
    search, tried = RateSearch(20.0, least_per_s=5.0), list[float]()
    while (rate_per_s := search.next_rate()) is not None:
        tried.append(rate_per_s)
        search.record(rate_per_s, passed=False)
    assert tried == [20.0, 10.0, 5.0] and search.passed_per_s is None
