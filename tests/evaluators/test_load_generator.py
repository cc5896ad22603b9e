"""The load generator against a toy server with known delays and faults."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.load import bench
from evaluators.load.endpoint import Endpoint
from evaluators.load.plan import Seeds
from evaluators.load.result import LoadResult
from evaluators.load.session import ClientOptions, LoadSession, auto_processes, run_load, run_loads
from evaluators.load.workload import Load, Slo
from population.errors import ConfigError, InfrastructureError
from tests.evaluators.toy_server import VOCAB, Script, ToyServer

BURST = Load(name="burst", rate_per_s=math.inf, num_requests=4, input_tokens=(6, 6), output_tokens=(8, 8))
OPEN = Load(name="open", rate_per_s=30.0, window_s=0.8, input_tokens=(6, 6), output_tokens=(10, 10))
CLOSED = Load(name="closed", kind="closed", concurrency=3, window_s=0.6, input_tokens=(6, 6), output_tokens=(5, 5))
SEEDS = Seeds(trace=1, content=2)


def endpoint(server: ToyServer) -> Endpoint:
    return Endpoint(url=server.url, vocab=VOCAB, prompt_ids=(0, 999))


def measured(script: Script, load: Load, **change: object) -> LoadResult:
    with ToyServer(script) as server:
        return asyncio.run(run_load(replace(endpoint(server), **change), load, 1, 2))


def test_known_delays_are_measured() -> None:
    result = measured(Script(first_s=0.08, per_token_s=0.01), replace(OPEN, window_s=None, num_requests=12))
    assert result.errors == []
    assert result.metrics["completed"] == 12
    assert 78 <= result.metrics["median_ttft_ms"] <= 250
    assert 9 <= result.metrics["median_tpot_ms"] <= 30
    assert 165 <= result.metrics["median_e2el_ms"] <= 500
    first = result.responses[0]
    assert first.output_ids == [(6 + k) % 1000 for k in range(10)]
    assert first.scheduled_s <= first.sent_s < first.first_s < first.last_s <= first.end_s  # type: ignore[operator]


def test_several_tokens_in_a_chunk_are_several_tokens() -> None:
    result = measured(Script(per_token_s=0.01, tokens_per_chunk=4), BURST)
    assert result.errors == []
    assert result.responses[0].chunk_tokens == [4, 4]
    assert result.metrics["total_output_tokens"] == 32
    assert 40 / 7 * 0.9 <= result.metrics["median_tpot_ms"] <= 30
    assert result.metrics["median_itl_ms"] >= 36


def test_a_role_only_chunk_is_no_first_token() -> None:
    result = measured(Script(first_s=0.1, role_first=True), BURST)
    assert result.errors == []
    assert result.metrics["median_ttft_ms"] >= 98


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("status-500", "http-status"),
        ("redirect", "http-status"),
        ("garbage", "garbage"),
        ("bad-json", "invalid-json"),
        ("nan", "invalid-json"),
        ("no-done", "no-done"),
        ("reset", "connection-lost"),
        ("wrong-usage", "usage-mismatch"),
        ("wrong-text", "text-mismatch"),
        ("bad-id", "bad-token-ids"),
        ("too-many", "too-many-tokens"),
        ("too-few", "too-few-tokens"),
        ("early-stop", "early-stop"),
        ("after-done", "data-after-done"),
    ],
)
def test_each_fault_is_named(fault: str, kind: str) -> None:
    result = measured(Script(fault=fault, per_token_s=0.002), BURST)
    assert [(group.kind, group.count) for group in result.errors] == [(kind, 4)]
    assert result.errors[0].evidence
    assert result.metrics["median_ttft_ms"] == math.inf
    assert result.metrics["total_output_tokens"] == 0
    assert "nothing_completed" in result.flags


def test_a_server_that_never_answers() -> None:
    result = measured(Script(fault="never"), BURST, request_timeout_s=0.2)
    assert [group.kind for group in result.errors] == ["timeout"]
    begun_s = time.monotonic()
    windowed = measured(Script(fault="never"), OPEN)
    assert time.monotonic() - begun_s < 3
    assert windowed.errors == []
    assert windowed.metrics["censored"] == 24
    assert windowed.metrics["output_throughput"] == 0
    assert 0 < windowed.metrics["median_ttft_ms"] <= 800


def test_nothing_listens() -> None:
    result = asyncio.run(run_load("http://127.0.0.1:9", BURST, 1, 2))
    assert [group.kind for group in result.errors] == ["connection-failed"]
    with pytest.raises(InfrastructureError, match="no server answers"):
        bench("http://127.0.0.1:9", [BURST])


def test_a_window_censors_and_counts_what_arrived() -> None:
    with ToyServer(Script(first_s=0.05, per_token_s=0.1)) as server:
        result = asyncio.run(run_load(endpoint(server), OPEN, 1, 2))
    assert result.errors == []
    assert result.metrics["duration"] == 0.8
    assert result.metrics["completed"] + result.metrics["censored"] == 24
    assert result.metrics["censored"] > 18
    assert result.metrics["total_output_tokens"] == sum(r.tokens for r in result.responses) > 40
    assert max(r.end_s for r in result.responses) <= 0.8
    assert 45 <= result.metrics["median_ttft_ms"] <= 250


def test_the_schedule_does_not_drift() -> None:
    with ToyServer() as server:
        result = asyncio.run(run_load(endpoint(server), replace(OPEN, rate_per_s=200.0, output_tokens=(1, 1)), 5, 6))
        again = asyncio.run(run_load(endpoint(server), replace(OPEN, rate_per_s=200.0, output_tokens=(1, 1)), 5, 7))
    assert 158 <= len(result.responses) <= 160  # what is due in the last millisecond may not leave
    lags = [
        response.sent_s - response.scheduled_s for response in sorted(result.responses, key=lambda r: r.scheduled_s)
    ]
    assert min(lags) >= 0
    assert min(lags[80:]) < 0.05  # a stall delays some; whoever drifts is late for all that follow

    def due(r: LoadResult) -> list[float]:
        return sorted(x.scheduled_s for x in r.responses)

    assert due(result)[:158] == pytest.approx(due(again)[:158], abs=1e-5)
    assert due(result)[-1] < 0.8


def test_a_closed_loop_keeps_its_concurrency() -> None:
    with ToyServer(Script(first_s=0.02, per_token_s=0.002)) as server:
        result = asyncio.run(run_load(endpoint(server), CLOSED, 1, 2))
        finite = asyncio.run(run_load(endpoint(server), replace(CLOSED, window_s=None, num_requests=7), 1, 3))
    for answers in (result.responses, finite.responses):
        assert max(sum(other.sent_s <= r.sent_s < other.end_s for other in answers) for r in answers) == 3
    assert result.metrics["completed"] >= 9
    assert result.metrics["censored"] <= 3
    assert finite.metrics["completed"] == 7


def test_turns_extend_each_other() -> None:
    load = replace(BURST, num_requests=6, turns=3, shared_prefix_tokens=5)
    with ToyServer() as server:
        result = asyncio.run(run_load(endpoint(server), load, 1, 2))
    assert result.errors == []
    assert len(result.responses) == 6
    by_id = {response.id: response for response in result.responses}
    for session in range(2):
        for turn in range(2):
            earlier, later = by_id[f"burst/{session}.{turn}"], by_id[f"burst/{session}.{turn + 1}"]
            history = earlier.prompt_ids + (earlier.output_ids or [])
            assert later.prompt_ids[: len(history)] == history
            assert len(later.prompt_ids) == len(history) + 6
            assert later.sent_s >= earlier.end_s


def test_warm_up_and_loads_never_repeat_a_prompt_and_look_alike() -> None:
    loads = [BURST, replace(BURST, name="second")]
    with ToyServer() as server:
        run_loads(endpoint(server), loads, SEEDS, warmup_requests=3)
        bodies = [seen.body for seen in server.seen]
        headers = {json.dumps({k: v for k, v in seen.headers.items() if k != "Content-Length"}) for seen in server.seen}
    assert len(bodies) == 11
    assert len({tuple(body["prompt"]) for body in bodies}) == 11
    assert len(headers) == 1
    assert len({tuple(body) for body in bodies}) == 1


def test_a_cut_off_load_waits_for_the_server_to_settle() -> None:
    options = ClientOptions(settle_timeout_s=5.0)
    with ToyServer(Script(per_token_s=0.05)) as server:
        (result,) = run_loads(endpoint(server), [OPEN], SEEDS, options=options)
        assert "unsettled" not in result.flags
        assert server.seen[-1].body["max_tokens"] == 1
    with ToyServer(Script(fault="never")) as server:
        (result,) = run_loads(endpoint(server), [OPEN], SEEDS, options=ClientOptions(settle_timeout_s=0.1))
        assert "unsettled" in result.flags


def test_worker_processes_share_one_schedule(tmp_path: Path) -> None:
    options = ClientOptions(processes=2, log=tmp_path / "log.jsonl")
    with ToyServer(Script(first_s=0.02)) as server:
        with LoadSession(endpoint(server), [OPEN, CLOSED, BURST], options) as session:
            results = [session.run(load, 1, 2) for load in (OPEN, CLOSED, BURST)]
        (alone,) = run_loads(endpoint(server), [OPEN], SEEDS)
    assert [result.errors for result in results] == [[], [], []]
    assert results[0].metrics["client_processes"] == 2
    assert len(results[0].responses) == 24
    by_id = {response.id: response for response in results[0].responses}
    for response in alone.responses:
        assert by_id[response.id].prompt_ids == response.prompt_ids
        assert by_id[response.id].scheduled_s == pytest.approx(response.scheduled_s, abs=1e-5)
    assert results[1].metrics["completed"] >= 6
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) >= sum(len(r.responses) for r in results)


def test_worker_processes_keep_the_vocabulary() -> None:
    options = ClientOptions(processes=2)
    with ToyServer(Script(fault="wrong-text")) as server, LoadSession(endpoint(server), [BURST], options) as session:
        results = [session.run(BURST, 1, seed) for seed in (2, 3)]
    assert [[error.kind for error in result.errors] for result in results] == [["text-mismatch"]] * 2


def test_a_failed_worker_is_the_machines_fault() -> None:
    options = ClientOptions(processes=1, prefix=("sh", "-c", "echo broken >&2; exit 3"))
    unreachable = Endpoint(url="http://127.0.0.1:9")
    with LoadSession(unreachable, [BURST], options) as session, pytest.raises(InfrastructureError, match="broken"):
        session.run(BURST, 1, 2)


def test_the_highest_rate_of_a_server_of_known_capacity() -> None:
    """Four at a time, 50 ms each: 80 requests/s, and a queue above that."""
    load = Load(
        name="max",
        kind="max-rate",
        rate_per_s=30.0,
        burstiness=math.inf,
        window_s=1.0,
        input_tokens=(6, 6),
        output_tokens=(1, 1),
        slo=Slo(ttft_ms=250),
    )
    with ToyServer(Script(first_s=0.05, slots=4)) as server:
        (result,) = run_loads(endpoint(server), [load], SEEDS)
    assert 30 <= result.metrics["max_rate_per_s"] <= 100
    assert result.metrics["lowest_failed_rate_per_s"] <= result.metrics["max_rate_per_s"] * 1.09
    assert result.metrics["request_goodput"] > 0
    assert result.load.kind == "max-rate"


def test_no_rate_is_good_enough() -> None:
    load = Load(name="max", kind="max-rate", rate_per_s=4.0, window_s=1.0, output_tokens=(1, 1), slo=Slo(ttft_ms=1))
    with ToyServer(Script(first_s=0.05)) as server:
        (result,) = run_loads(endpoint(server), [load], SEEDS)
    assert result.metrics["max_rate_per_s"] == 0
    assert result.metrics["trials"] == 3, "no window of less than one request"
    assert result.metrics["total_output_tokens"] > 0
    assert any("no rate" in text for text in result.warnings)


def test_a_server_without_ids_is_measured_but_flagged() -> None:
    with ToyServer(Script(with_ids=False, tokens_per_chunk=2)) as server:
        (believed,) = bench(server.url, [BURST])
        (counted,) = bench(replace(endpoint(server), strict=False), [BURST])
        (refused,) = bench(endpoint(server), [BURST])
        assert server.seen[0].body["model"] == "toy"
    assert believed.flags - {"client_bound"} == {"unverified_tokens"}
    assert believed.metrics["total_output_tokens"] == 32
    assert believed.responses[0].output_ids is None
    assert counted.flags - {"client_bound"} == {"retokenized"}
    assert counted.metrics["total_output_tokens"] == 32
    assert [group.kind for group in refused.errors] == ["no-token-ids"]


def test_a_missing_usage_chunk_breaks_the_protocol_only_when_strict() -> None:
    with ToyServer(Script(with_usage=False)) as server:
        (strict,) = bench(endpoint(server), [BURST])
        (lenient,) = bench(replace(endpoint(server), strict=False), [BURST])
    assert [group.kind for group in strict.errors] == ["no-usage"]
    assert lenient.errors == []


def test_some_failures_among_good_answers() -> None:
    result = measured(Script(fail_every=3), replace(BURST, num_requests=9))
    assert result.metrics["failed"] == 3
    assert result.metrics["completed"] == 6
    assert result.metrics["median_ttft_ms"] < 1000


def test_defects_are_refused_all_at_once() -> None:
    bad = [replace(OPEN, rate_per_s=None), replace(OPEN, turns=0)]
    with pytest.raises(ConfigError) as caught:
        LoadSession(Endpoint(url="localhost:80"), bad)
    assert len(caught.value.problems) == 4


def test_one_process_until_the_load_is_heavy() -> None:
    assert auto_processes([OPEN, CLOSED], cpus=8) == 1
    assert auto_processes([replace(OPEN, rate_per_s=400.0, output_tokens=(128, 128))], cpus=8) == 7
    assert auto_processes([replace(OPEN, rate_per_s=400.0, output_tokens=(128, 128))], cpus=1) == 1


def test_nothing_stays_behind() -> None:
    before = set(threading.enumerate())
    with ToyServer(Script(fault="never")) as server, LoadSession(endpoint(server), [OPEN]) as session:
        session.run(replace(OPEN, window_s=0.1), 1, 2)
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
RAW = {
    "not http": b"hello\r\n\r\n",
    "no bytes": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "bad chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\ndata: {}\r\n",
    "bad length": HEAD + b"Content-Length: many\r\n\r\n",
    "short body": HEAD + b"Content-Length: 500\r\n\r\ndata: {}\n\n",
    "not gzip": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n123456789",
    "endless header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "endless line": HEAD + b"\r\ndata: " + b"x" * 2_000_000,
    "deep json": HEAD + b"\r\ndata: " + b"[" * 20_000 + b"\n\n",
    "not utf-8": HEAD + b"\r\ndata: \xff\xfe\n\n",
    "array": HEAD + b"\r\ndata: []\n\n",
    "two choices": HEAD + b'\r\ndata: {"choices": [{}, {}]}\n\n',
    "true as an id": HEAD + b'\r\ndata: {"choices": [{"text": "", "token_ids": [true]}]}\n\n',
    "ids as text": HEAD + b'\r\ndata: {"choices": [{"text": "", "token_ids": "12"}]}\n\n',
    "an error": HEAD + b'\r\ndata: {"error": {"message": "out of memory"}}\n\n',
}


@pytest.mark.parametrize("name", RAW)
def test_whatever_comes_back_is_a_value(name: str) -> None:
    async def run() -> LoadResult:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(RAW[name])
            try:
                await writer.drain()
                writer.close()
                await writer.wait_closed()
            except ConnectionError:
                return

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await run_load(Endpoint(url=f"http://127.0.0.1:{port}"), BURST, 1, 2)

    result = asyncio.run(run())
    assert result.metrics["failed"] == 4
    assert len(result.errors) == 1, result.errors
    assert result.errors[0].evidence
