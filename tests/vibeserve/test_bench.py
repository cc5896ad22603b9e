"""`vibeserve bench` beyond one load: workloads, two servers in turn, and conditions that fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from benchmarks.load_generator import agreement
from population.errors import ConfigError
from vibeserve.benching.measuring import direction
from vibeserve.benching.workload import read_workload
from vibeserve.cli import app
from vibeserve.layers import CHECKOUT

SERVER = CHECKOUT / "benchmarks" / "load_generator" / "fast_server.py"
LOADS = """
[[load]]
name = "few"
kind = "open"
rate_per_s = 40
num_requests = 8
output_tokens = 4

[[load]]
name = "many"
kind = "closed"
concurrency = 4
num_requests = 8
output_tokens = [4, 6]
"""


@contextmanager
def server(first_ms: float, pace_ms: float = 2) -> Iterator[str]:
    """A server whose first token comes after `first_ms`."""
    command = [sys.executable, str(SERVER), str(pace_ms), str(first_ms), "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            yield f"http://127.0.0.1:{child.stdout.readline().strip()}"
        finally:
            child.stdin.close()


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    file = tmp_path / "loads.toml"
    file.write_text(LOADS)
    return file


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["bench", *[str(arg) for arg in args]])


def last_object(result: Result) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1], parse_constant=pytest.fail)
    return value


def test_a_workload_file_is_measured_load_by_load(tmp_path: Path, workload: Path) -> None:
    with server(20) as url:
        result = invoke(url, "--workload", workload, "--repeats", "2", "--output", tmp_path / "o.json", "--json")
    assert result.exit_code == 0, result.output
    value = last_object(result)
    assert (value["repeats"], list(value["loads"])) == (2, ["few", "many"])
    ttft = value["metrics"]["median_ttft_ms@few"]
    assert (ttft["n"], ttft["low"] < ttft["value"] < ttft["high"]) == (2, True)
    assert 20 <= ttft["value"] < 60
    assert len(value["samples"]["output_throughput@many"]) == 2
    assert json.loads((tmp_path / "o.json").read_text()) == value


def test_two_servers_are_measured_in_turn_and_the_faster_is_named(workload: Path) -> None:
    with server(10) as fast, server(60) as slow:
        result = invoke(fast, "--workload", workload, "--against", slow, "--json")
    assert result.exit_code == 0, result.output
    value = last_object(result)
    gain = value["gains"]["median_ttft_ms@few"]
    assert (gain["n"], gain["verdict"]) == (6, "better")
    assert 2 < gain["value"] < 7, "60 ms against 10 ms and what the network adds"
    assert value["gains"]["output_throughput@many"]["value"] > 1, "more is better there"
    assert value["against"]["url"] == slow
    turns = [line.rpartition(": ")[2] for line in result.stderr.splitlines() if line.startswith("repeat ")]
    assert turns[:4] == [fast, slow, slow, fast], "ABBA"


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("p99_ttft_ms>5", 1),
        ("p99_ttft_ms@few>5", 1),
        ("p99_ttft_ms>5000, output_throughput<1", 0),
        ("failed>0", 0),
        ("completed<8", 0),
    ],
)
def test_a_condition_decides_the_exit_code(workload: Path, condition: str, code: int) -> None:
    with server(20) as url:
        result = invoke(url, "--workload", workload, "--fail-if", condition, "--json")
    assert result.exit_code == code, result.output
    asked = last_object(result)["fail_if"]
    assert any(c["failed"] for c in asked) == bool(code) and asked[0].keys() >= {"metric", "limit", "value", "low"}
    assert ("failed: p99_ttft_ms@few is" in result.stderr) == bool(code)


def test_one_load_stays_as_vllm_writes_it() -> None:
    with server(10) as url:
        value = last_object(invoke(url, "--num-prompts", "4", "--output-len", "4", "--json"))
    assert (value["completed"], value["backend"], value["samples"]["completed@bench"]) == (4, "vibeserve", [4.0])
    assert value["median_ttft_ms"] >= 10


def test_a_target_is_a_workload() -> None:
    found = read_workload(CHECKOUT / "examples" / "tiny-llama")
    assert [load.name for load in found.loads] == ["high", "low", "shared"]
    assert (found.model, found.prompt_ids, found.warmup_requests) == ("tiny-llama", (99, 8191), 1)


def test_defects_of_a_workload_are_explained_at_once(tmp_path: Path) -> None:
    file = tmp_path / "loads.toml"
    file.write_text("[[load]]\nname = 'a'\nkind = 'opne'\nnum_requests = 1\n[[load]]\nrate = 3\n")
    with pytest.raises(ConfigError) as caught:
        read_workload(file)
    assert "kind must be one of" in str(caught.value) and "unknown key 'rate'" in str(caught.value)
    file.write_text("[model]\nname = 'a'\n")
    with pytest.raises(ConfigError, match="at least one"):
        read_workload(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_workload(tmp_path / "none.toml")


def test_a_workload_and_options_for_one_load_exclude_each_other(workload: Path) -> None:
    result = invoke("http://127.0.0.1:1", "--workload", workload, "--rate", "3", "--max-concurrency", "2")
    assert (result.exit_code, "--concurrency, --rate" in result.stderr) == (2, True)


def test_a_file_that_could_not_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    for option in ("--output", "--log"):
        result = invoke("http://127.0.0.1:1", option, tmp_path / "none" / "file.json")
        assert (result.exit_code, "a folder that exists" in result.stderr) == (2, True), result.stderr


def test_less_is_better_of_latencies_alone() -> None:
    assert [str(direction(name)) for name in ("p99_ttft_ms@low", "output_throughput", "max_rate_per_s")] == [
        "min",
        "max",
        "max",
    ]


def test_a_slip_in_a_condition_is_found_before_anything_is_measured(workload: Path) -> None:
    with server(10) as url:
        for condition, said in (("p98_ttft_ms>1", "did you mean"), ("failed@fwe>0", "the loads are few, many")):
            result = invoke(url, "--workload", workload, "--fail-if", condition)
            assert (result.exit_code, said in result.stderr, result.stdout) == (2, True, "")


class Guarded(BaseHTTPRequestHandler):
    """Answers with two tokens whoever knows the key."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "guarded"}]})

    def do_POST(self) -> None:
        if self.path != "/v1/completions":
            return self.send_error(404)
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        events: list[Any] = [{"choices": [{"index": 0, "text": "a", "finish_reason": None}]}] * (
            asked["max_tokens"] - 1
        )
        events += [{"choices": [{"index": 0, "text": "a", "finish_reason": "length"}]}]
        events += [{"choices": [], "usage": {"prompt_tokens": 32, "completion_tokens": asked["max_tokens"]}}]
        self._answer("".join(f"data: {json.dumps(e)}\n\n" for e in events) + "data: [DONE]\n\n")

    def _answer(self, content: Any) -> None:
        known = self.headers["Authorization"] == "Bearer key"
        body = (content if isinstance(content, str) else json.dumps(content)).encode() if known else b""
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def test_a_server_that_wants_a_key_gets_it() -> None:
    guarded = ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    thread = Thread(target=guarded.serve_forever)
    thread.start()
    try:
        args = [f"http://127.0.0.1:{guarded.server_port}", "--num-prompts", "2", "--output-len", "2", "--json"]
        with_key = invoke(*args, "--header", "Authorization=Bearer key")
        without, wrong = invoke(*args), invoke(*args, "--header", "Authorization")
        elsewhere = invoke(args[0] + "/chat", *args[1:], "--model", "m", "--header", "Authorization=Bearer key")
    finally:
        guarded.shutdown()
        thread.join()
        guarded.server_close()
    value = last_object(with_key)
    assert (with_key.exit_code, value["completed"], value["model_id"]) == (0, 2, "guarded")
    assert value["flags"] == ["unverified_tokens"], "no ids came back: its own usage was believed, and that is said"
    assert (without.exit_code, last_object(without)["errors_by_kind"][0]["kind"]) == (1, "http-status")
    assert (elsewhere.exit_code, "expected a server with /v1/completions" in elsewhere.stderr) == (1, True)
    assert "∞" not in elsewhere.stderr, "of a server that never answered there are no latencies"
    assert (wrong.exit_code, "expected NAME=VALUE" in wrong.stderr) == (3, True)


def test_the_committed_comparison_with_the_client_of_vllm_is_within_two_percent() -> None:
    found = json.loads((agreement.HERE / "agreement.json").read_text())
    assert [one["case"] for one in found] == [case.name for case in agreement.CASES]
    assert agreement.worst(found)[0] <= agreement.LIMIT == 0.02
    assert agreement.table(found) in (agreement.HERE / "agreement.md").read_text()
