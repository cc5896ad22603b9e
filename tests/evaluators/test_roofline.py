"""Ceilings: what no server can beat, declared or measured once per node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluators.load.generator import ShareResult
from evaluators.load.record import Response
from evaluators.load.result import collect
from evaluators.load.workload import Load
from evaluators.noise import CpuWindow
from evaluators.repeat import Repeat, readings
from evaluators.roofline import Roof, Work, impossible, roof
from evaluators.target import load_target, validate_target
from population.errors import InfrastructureError
from population.evaluation import Rejected, Stage

MEASURE = (
    "import argparse, json, pathlib\np = argparse.ArgumentParser(); p.add_argument('--output')\n"
    "log = pathlib.Path(__file__).with_name('runs'); log.write_text(log.read_text() + 'x' if log.exists() else 'x')\n"
    "pathlib.Path(p.parse_args().output).write_text(RESULT)\n"
)


def add(toy: Path, text: str) -> None:
    path = toy / "target.toml"
    path.write_text(path.read_text() + text)


def measured_by(toy: Path, result: str) -> None:
    """The toy target with a `[roofline]` command; its count of runs lies outside of the digest."""
    (toy / "roofline").mkdir()
    (toy / "roofline" / "measure.py").write_text(MEASURE.replace("RESULT", repr(result)))
    add(toy, '\n[roofline]\ncommand = ["{python}", "roofline/measure.py", "--output", "{output}"]\n')


def test_better_than_the_best_is_impossible() -> None:
    best = {"output_throughput@high": 100.0, "median_ttft_ms": 2.0}
    assert impossible({"output_throughput@high": 100.0, "median_ttft_ms@low": 2.0}, best) is None
    assert impossible({"output_throughput@low": 1e9, "median_tpot_ms@low": 1e-9}, best) is None
    fast = impossible({"output_throughput@high": 100.1}, best)
    assert fast is not None
    assert fast.stage is Stage.BENCHMARK
    assert fast.reason.startswith(
        "faster than the hardware: output_throughput@high is 100.1, but no server can be above"
    )
    soon = impossible({"median_ttft_ms@low": 1.9}, best)
    assert soon is not None
    assert "median_ttft_ms@low is 1.9, but no server can be below 2" in soon.reason


def test_declared_ceilings_hold(toy: Path, tmp_path: Path) -> None:
    assert roof(load_target(toy), tmp_path, tmp_path).best == {"median_tpot_ms@low": 0.4, "output_throughput": 32000.0}


def test_a_node_is_measured_once_and_the_more_generous_ceiling_counts(toy: Path, tmp_path: Path) -> None:
    measured_by(toy, json.dumps({"median_tpot_ms@low": 0.3, "output_throughput": 10.0, "mean_ttft_ms@high": 1}))
    expected = {"median_tpot_ms@low": 0.3, "output_throughput": 32000.0, "mean_ttft_ms@high": 1.0}
    for _ in range(2):
        assert roof(load_target(toy), tmp_path, tmp_path / "cache", (0,)) == Roof(best=expected)
    assert (toy / "roofline" / "runs").read_text() == "x"
    roof(load_target(toy), tmp_path, tmp_path / "cache", (0, 1))
    assert (toy / "roofline" / "runs").read_text() == "xx"


KEYS = ("flop_per_output_token", "flop_per_prompt_token", "bytes_per_step", "flop_per_s", "bytes_per_s")
WORK = dict.fromkeys(KEYS, 2)


def test_bytes_and_operations_are_kept_apart_from_ceilings(toy: Path, tmp_path: Path) -> None:
    measured_by(toy, json.dumps({"mean_ttft_ms@high": 1, "work": WORK}))
    found = roof(load_target(toy), tmp_path, tmp_path / "cache")
    assert "work" not in found.best and found.best["mean_ttft_ms@high"] == 1
    assert found.work == Work(**dict.fromkeys(WORK, 2.0))


@pytest.mark.parametrize(
    "result",
    [
        '{"x": NaN}', '{"x": -1}', '{"x": true}', "[1]", "", '{"work": 3}', '{"work": {"flop_per_s": 1}}',
        json.dumps({"work": WORK | {"bytes_per_s": 0}}), json.dumps({"work": WORK | {"more": 1}}),
        json.dumps({"work": WORK | {"bytes_per_step": "much"}}),
    ],
)  # fmt: skip
def test_a_broken_measurement_is_not_the_candidates_fault(toy: Path, tmp_path: Path, result: str) -> None:
    measured_by(toy, result)
    with pytest.raises(InfrastructureError, match=r"\[roofline\] command wrote an unusable result"):
        roof(load_target(toy), tmp_path, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "roofline").iterdir())


def test_a_failed_measurement_says_so(toy: Path, tmp_path: Path) -> None:
    measured_by(toy, "")
    (toy / "roofline" / "measure.py").write_text("raise SystemExit('no clock')")
    with pytest.raises(InfrastructureError, match="no clock"):
        roof(load_target(toy), tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[ceiling]]\nmetric = "median_tpot"\nbest = 1.0', "did you mean 'median_tpot_ms'"),
        ('[[ceiling]]\nmetric = "median_tpot_ms@slow"\nbest = 1.0', "no [[load]] is called 'slow'"),
        ('[[ceiling]]\nmetric = "median_tpot_ms"\nbest = 0.0', "'best'"),
        ('[[ceiling]]\nmetric = "median_tpot_ms"', "'best' is required"),
        ('[roofline]\ncommand = ["{python}", "x.py"]', "must contain {output}"),
    ],
)
def test_defects_name_their_key(toy: Path, text: str, said: str) -> None:
    add(toy, f"\n{text}\n")
    assert any(said in problem for problem in validate_target(toy)), validate_target(toy)


def answer(tokens: int, per_token_s: float, *, censored: bool) -> Response:
    """Of ten tokens asked for, the last of those that came arrives at the end of a window of one second."""
    chunks = [1.0 - (tokens - 1 - k) * per_token_s for k in range(tokens)]
    return Response(
        id="x/0", load="x", purpose="timed", prompt_ids=[1], max_tokens=10, output_ids=list(range(tokens)), text="",
        scheduled_s=0.5, sent_s=0.5, first_s=chunks[0], last_s=chunks[-1], chunk_s=chunks, chunk_tokens=[1] * tokens,
        finish_reason=None if censored else "length", censored=censored, end_s=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("response", "faster"), [(answer(1, 0.0, censored=True), False), (answer(10, 0.0001, censored=False), True)]
)
def test_what_was_cut_off_everywhere_is_not_fast(response: Response, faster: bool) -> None:
    load = Load(name="x", rate_per_s=1.0, window_s=1.0)
    result = collect(load, [ShareResult(responses=[response], wall_s=1.0, cpu_s=0.1, send_lag_s=[0.0])])
    quiet = CpuWindow(elapsed_s=1.0, busy_s=0.1, server_s=0.05, own_s=0.05)
    found = readings(Repeat(results=(result,), window=quiet), {"median_tpot_ms": 1.0})
    assert isinstance(found, Rejected) == faster
