"""`vibeserve sweep`: the grid, runs of the toy target with recorded measurements, failures, kills, going on."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evaluators.evaluator import EvaluationTask, Lease
from population.errors import ConfigError, RunError, UsageError
from population.evaluation import Evaluation, Rejected, Stage
from tests.vibeserve.recorded import TOY, RecordedEvaluator
from vibeserve.cli import app
from vibeserve.comparing.contenders import Selection
from vibeserve.comparing.line_up import line_up
from vibeserve.display import SilentDisplay
from vibeserve.runs import find_run, list_runs
from vibeserve.sweep import Planned, Status, Sweep, plan, split_values, unfinished
from vibeserve.sweep_folder import find_sweep, read_sweep, run_dir_of, write_sweep
from vibeserve.sweeping import Conducted, check, conduct
from vibeserve.wiring import Parts

CONSTANTS = (
    f"skills.dir={TOY / 'skills'}", "cluster.executor=inline", "evaluation.final_repeats=0", "budget.children=4",
)  # fmt: skip


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it and go on."""


@dataclass
class Troubled:
    """Recorded measurements with trouble at the runs whose number, in order of their first evaluations, is given."""

    reject_seed_of: int | None = None
    die_in: int | None = None
    interrupt: int | None = None
    begun: int = 0

    def evaluate(self, task: EvaluationTask, lease: Lease, progress: Callable[[Stage], None]) -> Evaluation:
        if task.candidate == "c000000":
            self.begun += 1
            if self.begun == self.reject_seed_of:
                return Rejected(stage=Stage.BOOT, reason="the server did not start")
        elif self.begun == self.die_in and task.candidate == "c000002":
            raise Killed
        elif self.begun == self.interrupt and task.candidate == "c000002":
            signal.raise_signal(signal.SIGINT)
        return RecordedEvaluator().evaluate(task, lease, progress)


def small_sweep(seeds: range = range(1, 3)) -> Sweep:
    return plan(TOY, None, (), (*CONSTANTS, "search.frontier_bias=0.3,0.9"), seeds)


def carry_out(folder: Path, evaluator: Troubled | None = None) -> tuple[Conducted, list[str]]:
    said: list[str] = []
    done = conduct(folder, SilentDisplay, said.append, Parts(evaluator=evaluator or Troubled()))
    return done, said


@pytest.fixture(autouse=True)
def _own_leases(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded measurements need no CPU of their own, so these runs do not wait for others on this machine."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("leases")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "20260101-000000-sweep-toy"
    made.mkdir()
    write_sweep(made, small_sweep())
    return made


# --- the grid ---------------------------------------------------------------------------------------------------------


def test_the_grid_is_every_setting_with_every_seed_seed_by_seed() -> None:
    made = plan(TOY, None, (), ("search.frontier_bias=0.3,0.9", "evaluation.racing=true,false"), range(3, 5))
    assert len(made.runs) == 2 * 2 * 2
    assert [run.seed for run in made.runs] == [3] * 4 + [4] * 4
    assert made.runs[0].name == "frontier_bias-0.3-racing-true-s3"
    assert len({run.name for run in made.runs}) == 8
    assert made.constants == ("evaluation.trace_seed=3",), "all runs see the same arrivals and lengths"
    assert made.overrides(made.runs[1]) == (
        "evaluation.trace_seed=3", "search.frontier_bias=0.3", "evaluation.racing=false",
    )  # fmt: skip


def test_commas_inside_brackets_and_quotes_do_not_separate() -> None:
    assert split_values('{"a" = "x,y", "b" = [1, 2]},none') == ['{"a" = "x,y", "b" = [1, 2]}', "none"]
    assert split_values("0.3, 0.5") == ["0.3", "0.5"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), "something to vary"),
        (("a.b",), "expected key=value"),
        (("a.b=1,,2",), "expected key=value"),
        (("a.b=1,2", "a.b=3"), "given twice"),
        (("seed=1,2",), "a sweep sets this itself"),
    ],
)
def test_a_grid_that_makes_no_sense_is_explained(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan(TOY, None, (), overrides, range(1, 2))


def test_every_wrong_value_is_told_before_anything_runs(tmp_path: Path) -> None:
    made = plan(TOY, None, (), ("search.frontier_bias=0.3,7,x", "budget.childs=3"), range(1, 4))
    with pytest.raises(ConfigError) as wrong:
        check(made)
    told = str(wrong.value)
    assert "got 7" in told and "got 'x'" in told and "did you mean 'budget.children'" in told
    assert len(wrong.value.problems) == 3
    with pytest.raises(ConfigError, match="expected a target folder"):
        check(plan(tmp_path / "absent", None, (), ("search.frontier_bias=0.3,0.9",), range(1, 2)))


# --- carried out ------------------------------------------------------------------------------------------------------


def test_one_command_runs_all_and_compare_finds_them(folder: Path) -> None:
    done, said = carry_out(folder)
    assert [run.status for run in done.sweep.runs] == [Status.FINISHED] * 4
    assert said[0] == "run 1 of 4: frontier_bias-0.3-s1"
    assert read_sweep(folder) == done.sweep
    assert len(list_runs(folder.parent)) == 4, "`ls` shows the runs of sweeps"
    assert find_run("frontier_bias-0.9-s2", folder.parent).parent == folder
    found = line_up(["sweep-toy"], (), Selection(), folder.parent, force=False)
    assert [(s.label, len(s.keys)) for s in found.settings] == [("frontier_bias=0.3", 2), ("frontier_bias=0.9", 2)]
    assert found.config.keys() == {"search.frontier_bias"}
    assert not found.forced and not any("arrival" in caveat for caveat in found.caveats)
    again, said = carry_out(folder)
    assert (said, again.sweep) == ([], done.sweep), "nothing is left to do"


def test_a_failed_run_is_noted_passed_over_and_tried_again(folder: Path) -> None:
    done, _ = carry_out(folder, Troubled(reject_seed_of=2))
    assert [run.status for run in done.sweep.runs] == [Status.FINISHED, Status.FAILED, *[Status.FINISHED] * 2]
    assert [run.name for run in done.failed] == ["frontier_bias-0.9-s1"]
    assert "the server did not start" in done.failed[0].error
    found = line_up([str(folder)], (), Selection(), None, force=False)
    assert len(found.entries) == 3
    assert any("frontier_bias-0.9-s1 failed" in caveat for caveat in found.caveats)


def test_a_killed_sweep_goes_on_where_it_was(folder: Path) -> None:
    with pytest.raises(Killed):
        carry_out(folder, Troubled(die_in=2))
    cut = read_sweep(folder)
    assert [run.status for run in cut.runs] == [Status.FINISHED, Status.STARTED, Status.PENDING, Status.PENDING]
    begun = run_dir_of(folder, cut.runs[1])
    done, said = carry_out(folder)
    assert said[0] == "run 2 of 4: frontier_bias-0.9-s1"
    assert [run.status for run in done.sweep.runs] == [Status.FINISHED] * 4
    assert run_dir_of(folder, done.sweep.runs[1]) == begun, "it was resumed, not begun again"


def test_ctrl_c_drains_the_run_in_progress_and_ends_there(folder: Path) -> None:
    done, _ = carry_out(folder, Troubled(interrupt=2))
    assert done.interrupted
    assert [run.status for run in done.sweep.runs] == [Status.FINISHED, Status.STARTED, *[Status.PENDING] * 2]
    assert any("3 of 4 runs are not finished" in text for text in unfinished(done.sweep))
    again, _ = carry_out(folder)
    assert not again.interrupted
    assert [run.status for run in again.sweep.runs] == [Status.FINISHED] * 4


def test_a_run_whose_end_was_missed_is_not_run_again(folder: Path) -> None:
    done, _ = carry_out(folder)
    write_sweep(folder, done.sweep.with_run(replace(done.sweep.runs[0], status=Status.STARTED)))
    again, _ = carry_out(folder, Troubled(reject_seed_of=1))
    assert [run.status for run in again.sweep.runs] == [Status.FINISHED] * 4


def test_two_processes_cannot_carry_out_one_sweep(folder: Path) -> None:
    import fcntl

    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another process"):
            carry_out(folder)


def test_names_that_end_alike_are_told_apart(tmp_path: Path) -> None:
    for name in ("20260101-000000-x-3-s1", "20260101-000000-3-s1"):
        (tmp_path / name / "ledger").mkdir(parents=True)
    found = run_dir_of(tmp_path, Planned(name="3-s1", setting={}, seed=1))
    assert found is not None and found.name == "20260101-000000-3-s1"


def test_a_damaged_file_is_explained(folder: Path) -> None:
    (folder / "sweep.json").write_text('{"format": 7}')
    with pytest.raises(RunError, match="expected format 1, got 7"):
        read_sweep(folder)
    assert find_sweep("sweep-toy", folder.parent) == folder
    assert find_sweep("absent", folder.parent) is None


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    common = [part for constant in CONSTANTS for part in ("-s", constant)]
    sweep = ["sweep", str(TOY), *common, "-s", "search.frontier_bias=0.3,0.9", "--runs-dir", "runs"]
    dry = CliRunner().invoke(app, [*sweep, "--seeds", "2", "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "4 runs of" in dry.stdout and "frontier_bias-0.9-s2: seed 2" in dry.stdout
    assert not (tmp_path / "runs").exists()
    assert CliRunner().invoke(app, ["sweep", "-s", "a=1,2"]).exit_code == UsageError.exit_code
    wrong = CliRunner().invoke(app, ["sweep", "--resume", "absent", "--runs-dir", "runs"])
    assert wrong.exit_code == UsageError.exit_code and "no such sweep" in wrong.output
    both = CliRunner().invoke(app, ["sweep", str(TOY), "--resume", "x"])
    assert "leave TARGET" in both.output


def test_the_command_goes_on_with_a_finished_sweep_and_says_so(folder: Path) -> None:
    carry_out(folder)
    result = CliRunner().invoke(app, ["sweep", "--resume", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout.splitlines()[-1])
    assert [run["status"] for run in value["runs"]] == ["finished"] * 4
    assert all(Path(run["run_dir"]).is_dir() for run in value["runs"])
