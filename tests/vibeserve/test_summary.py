"""Everything that is said about a run is computed from its ledger."""

from __future__ import annotations

import json
import math
import os
import socket
from pathlib import Path

import pytest

from population.candidate import Operator
from population.errors import UsageError
from population.evaluation import Rejected, Scored, Stage
from population.events import EpochStarted, Event, Stopped
from tests.vibeserve.fabricated import FabricatedRun, scored, small_run
from vibeserve.commands.output import print_json
from vibeserve.dossier import dossier
from vibeserve.lifecycle import RunState, run_state
from vibeserve.progress import event_text, follow
from vibeserve.runs import Reference, candidate_name, find_candidate, find_run, list_runs, read_run
from vibeserve.summary import summarise, to_json


def test_a_summary_counts_every_child_once(tmp_path: Path) -> None:
    summary = summarise(small_run(tmp_path))
    assert (summary.children, summary.scored, dict(summary.rejected)) == (5, 3, {"audit": 1, "dedupe": 1})
    assert summary.scored + sum(summary.rejected.values()) == summary.children
    assert (summary.state, summary.stopped_because, summary.errors) == (RunState.FINISHED, "budget: children", 1)


def test_the_front_is_beside_seed_and_baseline_with_gains(tmp_path: Path) -> None:
    summary = summarise(small_run(tmp_path))
    assert [row.id for row in summary.front] == ["c000001", "c000003"], "best in the first objective first"
    throughput, ttft = summary.front[1].metrics
    assert throughput.gain == pytest.approx(15.0)
    assert ttft.gain == pytest.approx(5.0), "less is better, so a fifth is five times better"
    assert summary.front[0].metrics[0].n == 4, "re-measurements are pooled"
    assert list(summary.baselines) == ["kv"]
    assert summary.baselines["kv"].metrics[0].gain == pytest.approx(600 / 98), "against the seed on the same trace"
    assert summary.held_out["c000001"].metrics[0].value == pytest.approx(2290)


def test_hypervolume_has_its_reference_at_the_seed(tmp_path: Path) -> None:
    summary = summarise(small_run(tmp_path))
    wide, tall = (math.log(23.05), math.log(50 / 40.5)), (math.log(15), math.log(5))
    assert summary.hypervolume == pytest.approx(tall[0] * tall[1] + (wide[0] - tall[0]) * wide[1], rel=1e-2)
    assert summary.reference == pytest.approx({"output_throughput": 100.0, "median_ttft_ms": 50.0})


def test_the_json_of_a_run_is_strict_and_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = small_run(tmp_path)
    print_json(to_json(summarise(folder)))
    value = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    wanted = {
        "run",
        "elapsed_s",
        "children",
        "scored",
        "rejected",
        "errors",
        "seed",
        "baselines",
        "hypervolume",
        "front",
    }
    assert wanted <= value.keys()
    assert value["rng_seed"] == 7
    member = value["front"][0]
    assert member.keys() == {"id", "commit", "parents", "operator", "tier", "gaps", "metrics"}
    assert member["metrics"]["output_throughput"].keys() == {"value", "low", "high", "n", "unit", "direction"}
    assert len(member["commit"]) == 40


def test_infinite_numbers_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": math.inf, "b": [math.nan, 1.5], "c": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": "x"}


def test_a_run_without_a_scored_seed_has_no_front(tmp_path: Path) -> None:
    run = FabricatedRun.create(tmp_path, "young")
    summary = summarise(run.folder)
    assert (summary.seed, summary.front, summary.hypervolume) == (None, (), None)
    run.child(0, None, Operator.SEED)
    assert summarise(run.folder).in_flight == 1
    run.close()


def test_a_candidate_that_fails_when_measured_again_counts_as_rejected(tmp_path: Path) -> None:
    from population.events import Remeasured, RemeasureStarted

    run = FabricatedRun.create(tmp_path, "flaky")
    run.child(0, scored(100, 50), Operator.SEED)
    run.child(1, scored(200, 40), parents=("c000000",))
    run.append(RemeasureStarted(index=0, candidate="c000001"))
    verdict = Rejected(stage=Stage.AUDIT, reason="wrong token")
    run.append(Remeasured(index=0, candidate="c000001", evaluation=verdict))
    run.close()
    summary = summarise(run.folder)
    assert (summary.scored, dict(summary.rejected)) == (0, {"audit": 1})
    assert [row.id for row in summary.front] == ["c000000"]
    found = dossier(Reference(run_dir=run.folder, candidate="c000001"))
    assert found.verdict == "rejected at audit when it was measured again"


def test_states_of_a_run(tmp_path: Path) -> None:
    here = EpochStarted(epoch=1, host=socket.gethostname(), pid=os.getpid())
    gone = EpochStarted(epoch=1, host=socket.gethostname(), pid=2**22 + 1)
    away = EpochStarted(epoch=1, host="elsewhere", pid=1)
    cases: list[tuple[list[Event], RunState]] = [
        ([here], RunState.RUNNING),
        ([gone], RunState.KILLED),
        ([away], RunState.REMOTE),
        ([gone, Stopped(reason="interrupted")], RunState.STOPPED),
        ([gone, Stopped(reason="budget: wall time")], RunState.FINISHED),
        ([gone, Stopped(reason="interrupted"), here], RunState.RUNNING),
        ([], RunState.KILLED),
    ]
    assert [run_state(events) for events, _ in cases] == [state for _, state in cases]


def test_a_snapshot_from_outside_shows_what_is_in_flight(tmp_path: Path) -> None:
    run = FabricatedRun.create(tmp_path, "going")
    run.child(0, scored(100, 50), Operator.SEED)
    run.child(1, None, parents=("c000000",), recipe="kv-cache")
    run.child(2, None, parents=("c000000",), recipe="flush", commits=False)
    summary, snapshot = follow(run.folder)
    assert summary.state is RunState.RUNNING
    assert [(s.key, s.label, s.stage) for s in snapshot.slots] == [
        ("c000001", "kv-cache", "evaluate"),
        ("c000002", "flush", "mutate"),
    ]
    assert snapshot.meters[0].limit == 25
    run.close()


def test_every_event_has_a_line_or_none(tmp_path: Path) -> None:
    events, _ = read_run(small_run(tmp_path))
    lines = [text for text in map(event_text, events) if text]
    assert "c000002 rejected at audit: max gap 1.2 above 0.5 (2.5 s)" in lines
    assert "c000001 proposed: recipe kv-cache of c000000" in lines
    assert all("\n" not in line for line in lines)


def test_a_dossier_knows_lineage_and_verdict(tmp_path: Path) -> None:
    folder = small_run(tmp_path)
    found = dossier(Reference(run_dir=folder, candidate="c000003"))
    assert (found.lineage, found.verdict) == (("c000003", "c000001", "c000000"), "scored, on the front")
    assert found.knobs == {"server.batch": 4}
    assert isinstance(found.metrics[0].gain, float)
    rejected = dossier(Reference(run_dir=folder, candidate="c000002"))
    assert (rejected.verdict, [f.name for f in rejected.files]) == ("rejected at audit", ["server.log"])
    with pytest.raises(UsageError, match="c000000 to c000005"):
        dossier(Reference(run_dir=folder, candidate="c000099"))


@pytest.mark.parametrize("text", ["c000012", "12", "c12", "000012"])
def test_candidates_have_short_names(text: str) -> None:
    assert candidate_name(text) == "c000012"


@pytest.mark.parametrize("text", ["", "x", "c", "-1", "c12345678", "1 2", "١٢"])
def test_what_is_no_candidate_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a candidate"):
        candidate_name(text)


def test_runs_are_found_by_path_name_part_or_as_the_latest(tmp_path: Path) -> None:
    first = small_run(tmp_path, "20260101-000000-alpha")
    last = small_run(tmp_path, "20260102-000000-beta")
    (tmp_path / "not-a-run").mkdir()
    assert list_runs(tmp_path) == [first, last]
    assert find_run(None, tmp_path) == last
    assert find_run("alpha", tmp_path) == find_run(str(first), tmp_path) == find_run(first.name, tmp_path) == first
    assert find_candidate("alpha:3", None, tmp_path) == Reference(run_dir=first, candidate="c000003")
    for text, message in (("2026", "fits 2 runs"), ("20260101-000000-alpa", "did you mean"), ("not-a-run", "ledger")):
        with pytest.raises(UsageError, match=message):
            find_run(text, tmp_path)
    with pytest.raises(UsageError, match="quickstart"):
        find_run(None, tmp_path / "empty")


def test_fabricated_samples_are_what_an_evaluator_returns() -> None:
    assert isinstance(scored(1, 1), Scored)
