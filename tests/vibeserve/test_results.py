"""A run in a notebook and as a table."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pandas
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

import vibeserve
from population.candidate import Operator
from population.errors import UsageError
from population.evaluation import Scored
from tests.vibeserve.fabricated import FabricatedRun, scored, small_run
from vibeserve.cli import app


@pytest.fixture
def run(tmp_path: Path) -> vibeserve.Run:
    return vibeserve.Run(small_run(tmp_path))


def test_a_run_is_frozen_records(run: vibeserve.Run) -> None:
    assert [record.id for record in run.front] == ["c000001", "c000003"]
    assert (len(run.candidates), run.seed.id if run.seed else None) == (6, "c000000")
    rejected = run.candidate("2")
    assert (rejected.scored, rejected.stage, rejected.objectives) == (False, "audit", {})
    assert run.candidate("c000005").commit is None
    assert run.gain("3") == pytest.approx({"output_throughput": 15.0, "median_ttft_ms": 5.0})
    assert "+value = 4" in run.diff("3")
    assert run.front[0].metrics["output_throughput@high"].n == 4, "vLLM's names, by load, re-measurements pooled"
    with pytest.raises(FrozenInstanceError):
        rejected.stage = "boot"  # type: ignore[misc]
    for question in (lambda: run.candidate("99"), lambda: run.gain("2"), lambda: run.diff("5")):
        with pytest.raises(UsageError):
            question()


def test_runs_are_found_as_on_the_command_line(tmp_path: Path) -> None:
    small_run(tmp_path, "20260101-000000-alpha")
    last = small_run(tmp_path, "20260102-000000-beta")
    assert vibeserve.Run(runs_dir=tmp_path).folder == last
    assert vibeserve.Run("alpha", tmp_path).name == "20260101-000000-alpha"


def test_the_dataframe_has_a_row_per_candidate_and_a_column_per_metric(run: vibeserve.Run) -> None:
    frame = run.dataframe()
    assert list(frame.index) == [f"c{n:06d}" for n in range(6)]
    assert list(frame.query("on_front").index) == ["c000001", "c000003"]
    assert frame.loc["c000003", "median_ttft_ms"] == pytest.approx(10)
    assert {"output_throughput_low", "median_ttft_ms@low", "p99_ttft_ms"} <= set(frame.columns)
    assert pandas.isna(frame.loc["c000002", "output_throughput"])


def test_a_front_plot_shows_members_with_intervals(run: vibeserve.Run) -> None:
    figure = run.plot_front(y="output_throughput")
    traces = {trace.name: trace for trace in figure.data}
    assert {name: len(trace.x) for name, trace in traces.items()} == {"dominated": 1, "front": 2, "seed": 1}
    assert list(traces["front"].y) == pytest.approx([2305, 1500], rel=1e-3)
    assert all(bar > 0 for bar in traces["front"].error_y.array)
    assert "median_ttft_ms (ms), less is better" in figure.layout.xaxis.title.text
    with pytest.raises(UsageError, match="expected two objectives"):
        run.plot_front(x="p99")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_tables_say_the_same_in_every_format(tmp_path: Path, ending: str) -> None:
    folder, file = small_run(tmp_path), tmp_path / f"candidates.{ending}"
    result = CliRunner().invoke(app, ["export", str(file), "--run", str(folder), "--json"])
    assert (result.exit_code, json.loads(result.stdout)["rows"]) == (0, 6), result.output
    if ending == "csv":
        with file.open(newline="") as stream:
            found = list(csv.DictReader(stream))
    elif ending == "jsonl":
        found = [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]
    else:
        found = pyarrow.parquet.read_table(file).to_pylist()
    assert float(found[3]["output_throughput"]) == pytest.approx(1500)
    assert [row["reason"] for row in found if row["stage"] == "audit"] == ["max gap 1.2 above 0.5"]
    assert found[2]["output_throughput"] in (None, "")


def test_an_infinite_latency_is_no_number_in_json(tmp_path: Path) -> None:
    run = FabricatedRun.create(tmp_path, "failing")
    good = scored(100, 50)
    run.child(0, Scored(samples={**good.samples, "p99_ttft_ms@low": (float("inf"),) * 2}), Operator.SEED)
    run.close()
    CliRunner().invoke(app, ["export", str(tmp_path / "t.jsonl"), "--run", str(run.folder)])
    assert json.loads((tmp_path / "t.jsonl").read_text(), parse_constant=pytest.fail)["p99_ttft_ms@low"] is None


def test_export_wants_a_folder_or_a_table(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", "c000001", "--run", str(small_run(tmp_path))])
    assert (result.exit_code, "candidates.csv" in result.stderr) == (2, True)


def test_importing_the_package_stays_light() -> None:
    code = (
        "import sys, vibeserve; assert not {'numpy', 'pandas', 'pydantic', 'plotly'} & set(sys.modules); vibeserve.Run"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    with pytest.raises(AttributeError, match="no attribute 'Rnu'"):
        vibeserve.Rnu  # type: ignore[attr-defined]  # noqa: B018
