"""Which trees are first-party, what the user is told about isolation, and both in whole runs without bubblewrap."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evaluators.isolation import facts, why_not_a, why_not_b
from population.candidate import Operator
from population.errors import IsolationError
from population.evaluation import Rejected, Scored, Stage
from population.event_json import decode, encode
from population.events import Ended, RunStarted
from population.ledger import read_events
from population.objectives import Direction, Objective
from tests.vibeserve.recorded import TOY, RecordedEvaluator, toy_config
from vibeserve.display import SilentDisplay
from vibeserve.front_rows import gaps_of, weakest_tier
from vibeserve.layers import CHECKOUT
from vibeserve.tiers import Isolation, announcement, is_mechanical, is_own, is_own_seed, look, require
from vibeserve.wiring import Parts, run

DEADLINE_S = 240.0
NO_BWRAP = "bubblewrap is not installed"
A = Isolation(node="n1", tier="A")
B = Isolation(node="n2", tier="B", gaps=("files: stat",), why=NO_BWRAP, cure="install it")
C = Isolation(node="n3", tier="C", gaps=("everything",), why=NO_BWRAP, cure="install it")
REFUSED = Isolation(node="n4", tier=None, why="expected an isolation,\nfound none")


# --- first-party ------------------------------------------------------------------------------------------------------


def test_the_checkout_is_its_own_and_nothing_else_is(tmp_path: Path) -> None:
    assert is_own(TOY, TOY / "skills", CHECKOUT / "skills", CHECKOUT / "examples" / "tiny-llama")
    assert not is_own(TOY, tmp_path)
    assert not is_own(Path(shutil.copytree(TOY, tmp_path / "copy")))
    (tmp_path / "link").symlink_to(TOY)
    assert is_own(tmp_path / "link")


def test_a_link_out_of_the_checkout_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "checkout"
    (root / "target").mkdir(parents=True)
    monkeypatch.setattr("vibeserve.tiers.CHECKOUT", root)
    assert is_own(root / "target")
    (tmp_path / "foreign.py").touch()
    (root / "target" / "server.py").symlink_to(tmp_path / "foreign.py")
    assert not is_own(root / "target")


def test_a_seed_of_the_checkout_is_known_by_its_contents(tmp_path: Path) -> None:
    example = CHECKOUT / "examples" / "tiny-llama"
    copy = Path(shutil.copytree(example / "seed", tmp_path / "seed", ignore=shutil.ignore_patterns("__pycache__")))
    assert is_own_seed(copy, tmp_path)
    (copy / "server.py").write_text((copy / "server.py").read_text() + "\n")
    assert not is_own_seed(copy, tmp_path)
    assert is_own_seed(TOY / "seed", TOY)
    assert not is_own_seed(TOY / "seed", tmp_path)


def test_only_mechanical_operators_keep_a_tree_first_party() -> None:
    assert is_mechanical([Operator.SEED, Operator.RECIPE, Operator.TUNE, Operator.MERGE])
    assert not is_mechanical([Operator.RECIPE, Operator.AGENT])
    assert not is_mechanical([Operator.REPAIR])


@pytest.mark.parametrize("foreign", [False, True])
def test_a_run_records_whether_it_is_first_party(tmp_path: Path, foreign: bool) -> None:
    config = toy_config(tmp_path / "runs", "budget.children=1")
    if foreign:
        config = config.replace("target", Path(shutil.copytree(TOY, tmp_path / "copy")), "test")
    result = run(config, SilentDisplay(), Parts(evaluator=RecordedEvaluator()))
    started = next(e for e in read_events(result.run_dir / "ledger") if isinstance(e, RunStarted))
    assert started.first_party is not foreign


# --- words ------------------------------------------------------------------------------------------------------------


def test_each_tier_has_its_line() -> None:
    assert announcement([A], ()) == ["isolation: tier A (bubblewrap)"]
    (line,) = announcement([B], ())
    assert "tier B" in line and NO_BWRAP in line and "files: stat" in line and not line.startswith("warning")
    (line,) = announcement([C], ("C",))
    assert line.startswith("warning: isolation: tier C") and NO_BWRAP in line and "install it" in line
    assert "checkout's own" in line and "\n" not in line


def test_unlike_nodes_are_named() -> None:
    lines = announcement([A, B, Isolation(node="n9", tier="A"), REFUSED], ())
    assert len(lines) == 3
    assert "on n1, n9: tier A" in lines[0]
    assert "on n2: tier B" in lines[1]
    assert lines[2].startswith("warning") and "n4" in lines[2] and "\n" not in lines[2]


def test_a_change_of_tier_within_a_run_is_said() -> None:
    assert len(announcement([C], {"C"})) == 1
    (_, warning) = announcement([C], {"A"})
    assert "tier A so far" in warning and "goes on in C" in warning


def test_all_refusing_is_an_error_and_some_is_not() -> None:
    require([A, REFUSED])
    require([])
    with pytest.raises(IsolationError, match="found none"):
        require([REFUSED, REFUSED])


def test_looking_says_what_choosing_would() -> None:
    found = look(allow_reduced=False, first_party=True)
    assert found.tier == ("A" if why_not_a(facts()) is None else "C")
    assert bool(found.why) == (found.tier == "C")
    foreign = look(allow_reduced=False, first_party=False)
    assert foreign.tier == ("A" if why_not_a(facts()) is None else None)


# --- records ----------------------------------------------------------------------------------------------------------


def test_gaps_are_recorded_and_older_ledgers_are_read() -> None:
    for evaluation in (
        Scored(samples={"x": (1.0,)}, tier="B", gaps=("files: stat", "network")),
        Rejected(stage=Stage.BOOT, reason="died", tier="B", gaps=("files: stat",)),
    ):
        line = encode(Ended(number=1, evaluation=evaluation))
        event = decode(line)
        assert isinstance(event, Ended) and event.evaluation == evaluation
        older = json.loads(line)
        del older["evaluation"]["gaps"]
        event = decode(json.dumps(older).encode())
        assert isinstance(event, Ended) and event.evaluation.gaps == () and event.evaluation.tier == "B"


def test_ledgers_without_first_party_are_not() -> None:
    objectives = (Objective(name="x", direction=Direction.MAX),)
    older = json.loads(encode(RunStarted(run="r", seed=1, objectives=objectives, first_party=True)))
    del older["first_party"]
    event = decode(json.dumps(older).encode())
    assert isinstance(event, RunStarted) and not event.first_party


def test_the_weakest_tier_speaks_for_a_candidate() -> None:
    mixed = [Scored(samples={}, tier=tier, gaps=gaps) for tier, gaps in (("A", ()), ("B", ("x", "y")), ("A", ("y",)))]
    assert weakest_tier(mixed) == "B"
    assert gaps_of(mixed) == ("x", "y")


# --- whole runs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path_without_bwrap(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Everything that PATH has, but for bubblewrap."""
    farm = tmp_path_factory.mktemp("bin")
    for folder in filter(os.path.isdir, os.environ["PATH"].split(os.pathsep)):
        for program in Path(folder).iterdir():
            place = farm / program.name
            if program.name != "bwrap" and not place.is_symlink():
                place.symlink_to(program)
    return str(farm)


def invoke(tmp_path: Path, path: str, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(CHECKOUT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "vibeserve", *args]
    result = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=DEADLINE_S, check=False, cwd=tmp_path
    )
    assert result.returncode == code, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    return result


def arguments(target: Path | None, *more: str) -> list[str]:
    """Of the smallest run; without recipes, because some of the toy's are there to be rejected."""
    settings = (
        "cluster.executor=inline", "budget.children=1", "evaluation.final_repeats=0", "evaluation.profile=false",
        "evaluation.repeats=1", "search.operators.recipe=false",
    )  # fmt: skip
    skills = () if target is None else (f"skills.dir={TOY / 'skills'}",)
    overrides = [word for setting in (*settings, *skills) for word in ("-s", setting)]
    which = [] if target is None else [str(target)]
    return ["run", *which, "--runs-dir", "runs", "--seed", "3", "--json", *overrides, *more]


def tier_c_run(tmp_path: Path, path: str, words: list[str]) -> Path:
    """The folder of a run that must have said, in one line, that nothing isolates it."""
    result = invoke(tmp_path, path, *words)
    warnings = [line for line in result.stderr.splitlines() if "tier C" in line and "warning" in line]
    assert len(warnings) == 1, result.stderr
    assert NO_BWRAP in warnings[0]
    summary = json.loads(result.stdout.splitlines()[-1])
    assert {row["tier"] for row in summary["front"]} == {"C"}
    assert all(row["gaps"] for row in summary["front"])
    (run_dir,) = (tmp_path / "runs").iterdir()
    return run_dir


def test_without_bubblewrap_the_quickstart_runs_in_tier_c(tmp_path: Path, path_without_bwrap: str) -> None:
    once = ["-s", "evaluation.remeasure=false", "-s", "evaluation.racing=false"]
    tier_c_run(tmp_path, path_without_bwrap, arguments(None, "--preset", "quickstart", *once))


def test_without_bubblewrap_the_checkouts_own_target_runs_in_tier_c(tmp_path: Path, path_without_bwrap: str) -> None:
    run_dir = tier_c_run(tmp_path, path_without_bwrap, arguments(TOY))
    shown = invoke(tmp_path, path_without_bwrap, "show", "seed", "--runs-dir", "runs").stdout
    assert "isolation  tier C; it left open:" in shown
    resumed = invoke(
        tmp_path, path_without_bwrap, "resume", str(run_dir), "-s", "budget.children=2", "--json"
    )  # its ledger says that it is first-party
    assert "tier C" in resumed.stderr


def test_without_bubblewrap_a_foreign_target_is_refused(tmp_path: Path, path_without_bwrap: str) -> None:
    target = Path(shutil.copytree(TOY, tmp_path / "foreign"))
    result = invoke(tmp_path, path_without_bwrap, *arguments(target), code=3)
    assert NO_BWRAP in result.stderr and "install bubblewrap" in result.stderr
    if why_not_b(facts()) is None:
        assert "--allow-reduced-isolation" in result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["exit_code"] == 3
    assert not (tmp_path / "runs").exists()
    judged = invoke(tmp_path, path_without_bwrap, "judge", str(target), str(target / "seed"), code=3)
    assert NO_BWRAP in judged.stderr


def test_without_bubblewrap_a_foreign_target_runs_in_tier_b_if_asked_to(
    tmp_path: Path, path_without_bwrap: str
) -> None:
    target = Path(shutil.copytree(TOY, tmp_path / "foreign"))
    flag = "--allow-reduced-isolation"
    problem = why_not_b(facts())
    if problem is not None:
        refused = invoke(tmp_path, path_without_bwrap, *arguments(target, flag), code=3)
        assert problem.cause in refused.stderr
        return
    result = invoke(tmp_path, path_without_bwrap, *arguments(target, flag))
    assert "isolation: tier B" in result.stderr
    row = json.loads(result.stdout.splitlines()[-1])["front"][0]
    assert row["tier"] == "B" and any("stat" in gap for gap in row["gaps"])
    judged = invoke(tmp_path, path_without_bwrap, "judge", str(target), str(target / "seed"), flag, "--json")
    verdict = json.loads(judged.stdout.splitlines()[-1])
    assert verdict["verdict"] == "scored" and verdict["tier"] == "B" and verdict["gaps"]


def test_a_foreign_target_runs_isolated_where_bubblewrap_works(tmp_path: Path) -> None:
    target = Path(shutil.copytree(TOY, tmp_path / "foreign"))
    problem = why_not_a(facts())
    if problem is not None:
        refused = invoke(tmp_path, os.environ["PATH"], *arguments(target), code=3)
        assert problem.cause in refused.stderr
        return
    result = invoke(tmp_path, os.environ["PATH"], *arguments(target))
    assert "isolation: tier A (bubblewrap)" in result.stderr
    assert {row["tier"] for row in json.loads(result.stdout.splitlines()[-1])["front"]} == {"A"}
