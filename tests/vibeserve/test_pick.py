"""Picking by a service level: conditions, their certainty, and what is said when none fits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from population.candidate import Operator
from population.errors import ConfigError, UsageError
from population.events import FinalMeasured
from population.statistics import Estimate
from tests.vibeserve.fabricated import OBJECTIVES, FabricatedRun, scored, small_run
from vibeserve.cli import app
from vibeserve.conditions import Certainty, Condition, Verdict, applying, parse_conditions
from vibeserve.pick import pick
from vibeserve.runs import read_run


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def served(tmp_path: Path) -> Path:
    """Three candidates: fast but late, slower and early, and one that is in between in both."""
    run = FabricatedRun.create(tmp_path, "served")
    late = {"p99_ttft_ms@low": 900.0, "p99_ttft_ms@high": 9000.0}
    early = {"p99_ttft_ms@low": 50.0, "p99_ttft_ms@high": 5000.0}
    middle = {"p99_ttft_ms@low": 195.0, "p99_ttft_ms@high": 6000.0}
    run.child(0, scored(100, 80, **late), Operator.SEED)
    run.child(1, scored(900, 60, **late), parents=("c000000",), recipe="a")
    run.child(2, scored(300, 20, **early), parents=("c000000",), recipe="b")
    run.child(3, scored(500, 40, **middle), parents=("c000000",), recipe="c")
    run.append(FinalMeasured(subject="c000002", evaluation=scored(290, 21, **{**early, "p99_ttft_ms@low": 230.0})))
    run.close()
    return run.folder


def test_conditions_are_read_as_people_write_them() -> None:
    found = parse_conditions(" p99_ttft_ms<200, p50_tpot_ms@low <= 1e1,output_throughput>=5", "--slo")
    assert [str(c) for c in found] == ["p99_ttft_ms < 200", "median_tpot_ms@low <= 10", "output_throughput >= 5"]


@pytest.mark.parametrize(
    "text", ["", "p99_ttft_ms", "<200", "p99_ttft_ms<", "p99_ttft_ms=200", "a<nan", "a<inf", " , "]
)
def test_what_is_no_condition_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="--slo: expected conditions such as"):
        parse_conditions(text, "--slo")


@given(
    value=st.floats(1e-3, 1e6), spread=st.floats(1.0, 10.0), limit=st.floats(1e-3, 1e6), relation=st.sampled_from("<>")
)
def test_certainty_follows_value_and_interval(value: float, spread: float, limit: float, relation: str) -> None:
    condition = Condition(metric="x", load=None, relation=relation, limit=limit)
    found = Estimate(value=value, low=value / spread, high=value * spread, n=3)
    verdict = Verdict(condition=condition, key="x", found=found)
    holds = (value < limit) if relation == "<" else (value > limit)
    assert verdict.certainty.holds == holds
    if verdict.certainty is Certainty.KEPT:
        assert condition.holds(found.low) and condition.holds(found.high)
    if verdict.certainty is Certainty.BROKEN:
        assert not condition.holds(found.low) and not condition.holds(found.high)
    assert (verdict.excess < 1) == (verdict.distance < 0)


def test_an_infinite_latency_breaks_every_limit() -> None:
    condition = Condition(metric="x", load=None, relation="<", limit=200)
    verdict = Verdict(condition=condition, key="x", found=Estimate(value=math.inf, low=1.0, high=math.inf, n=2))
    assert (verdict.certainty, verdict.excess) == (Certainty.PERHAPS_BROKEN, math.inf)


def test_a_condition_without_load_is_meant_for_the_loads_of_that_latency() -> None:
    known = ["p99_ttft_ms@low", "p99_ttft_ms@high", "request_throughput@low", "request_throughput@high"]
    assert applying("p99_ttft_ms", None, known, OBJECTIVES) == ("p99_ttft_ms@low",)
    assert applying("p99_ttft_ms", "high", known, OBJECTIVES) == ("p99_ttft_ms@high",)
    assert len(applying("request_throughput", None, known, OBJECTIVES)) == 2
    with pytest.raises(UsageError, match="did you mean 'p99_ttft_ms'"):
        applying("p98_ttft_ms", None, known, OBJECTIVES)
    with pytest.raises(UsageError, match="loads are high, low"):
        applying("p99_ttft_ms", "hihg", known, OBJECTIVES)


def test_the_best_that_surely_keeps_the_conditions_is_named(tmp_path: Path) -> None:
    folder = served(tmp_path)
    choice = pick(read_run(folder)[1], parse_conditions("p99_ttft_ms<200", "--slo"))
    assert choice.chosen is not None
    assert (choice.chosen.id, choice.chosen.sure, choice.keeping) == ("c000002", True, 2)
    assert choice.runner_up is not None and choice.runner_up.id == "c000003", "faster, but 195 may be above 200"
    assert [v.certainty for v in choice.held_out] == [Certainty.BROKEN]


def test_a_value_alone_will_do_if_no_interval_does(tmp_path: Path) -> None:
    choice = pick(read_run(served(tmp_path))[1], parse_conditions("p99_ttft_ms<200,output_throughput>400", "--slo"))
    assert choice.chosen is not None
    assert (choice.chosen.id, choice.chosen.sure) == ("c000003", False)


def test_the_command_names_the_candidate_and_what_the_fresh_measurement_says(tmp_path: Path) -> None:
    folder = served(tmp_path)
    result = invoke("pick", folder, "--slo", "p99_ttft_ms<200", "--maximize", "output_throughput", "--json")
    value = json.loads(result.stdout)
    assert (result.exit_code, value["candidate"], value["certain"], value["runner_up"]) == (
        0,
        "c000002",
        True,
        "c000003",
    )
    assert value["conditions"][0]["verdict"] == "kept"
    assert "held-out trace, measured afresh, it breaks: p99_ttft_ms@low is 230" in result.stderr
    least = json.loads(invoke("pick", folder, "--minimize", "median_ttft_ms", "--json").stdout)
    assert least["candidate"] == "c000002"


def test_when_none_fits_it_says_which_condition_fails_by_how_much(tmp_path: Path) -> None:
    result = invoke("pick", served(tmp_path), "--slo", "p99_ttft_ms<40", "--json")
    value = json.loads(result.stdout)
    assert (result.exit_code, value["candidate"], value["nearest"]) == (1, None, "c000002")
    assert value["conditions"][0]["beyond"] == pytest.approx(10)
    assert "p99_ttft_ms@low is 50.0, above the limit of 40 by 10 (25%)" in result.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--maximize", "median_ttft_ms"], "use --minimize"),
        (["--maximize", "a", "--minimize", "b"], "exclude each other"),
        (["--minimize", "p99_ttft_ms"], "name one: p99_ttft_ms@high, p99_ttft_ms@low"),
        (["--slo", "p99_tfft_ms<1"], "did you mean"),
    ],
)
def test_questions_that_have_no_answer(tmp_path: Path, args: list[str], said: str) -> None:
    result = invoke("pick", served(tmp_path), *args)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr


def test_a_run_without_scores_has_nothing_to_pick(tmp_path: Path) -> None:
    run = FabricatedRun.create(tmp_path, "young")
    run.close()
    assert "was scored" in invoke("pick", run.folder).stderr
    assert invoke("pick", small_run(tmp_path)).exit_code == 0
