"""The command line: exit codes, strict JSON, messages, and real processes where a process is what matters."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from population.candidate import Operator
from population.errors import BudgetError, ConfigError, InfrastructureError, UsageError
from tests.vibeserve.fabricated import FabricatedRun, scored, small_run
from vibeserve.cli import app
from vibeserve.layers import CHECKOUT
from vibeserve.tiers import look

TEMPLATE = CHECKOUT / "vibeserve" / "templates" / "target"
COMMANDS = [
    "run", "resume", "stop", "ls", "status", "watch", "index", "front", "show", "diff", "log", "export", "verify",
    "bench", "judge", "validate", "init", "doctor", "pick", "report", "deploy",
    "compare", "sweep",
]  # fmt: skip
DEADLINE_S = 20.0


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_ADDRESS", "VIBESERVE_RUNS_DIR", "VIBESERVE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def last_object(result: Result) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1], parse_constant=pytest.fail)
    return value


def process(args: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(
        [sys.executable, "-m", "vibeserve", *args], capture_output=True, text=True, env=env, timeout=300, **options
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until_healthy(child: subprocess.Popen[Any], port: int, within_s: float) -> str:
    """The address of a server that says that it is ready."""
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                return url
        except OSError:
            assert child.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server was not ready in time"
            time.sleep(0.05)


@contextmanager
def template_server(command: Sequence[str], folder: Path, port: int, env: dict[str, str]) -> Iterator[str]:
    """A server in its own process group, ready to answer, gone afterwards."""
    child = subprocess.Popen(command, cwd=folder, env={**os.environ, **env}, start_new_session=True)
    try:
        yield until_healthy(child, port, DEADLINE_S)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


# --- starting up ------------------------------------------------------------------------------------------------------


def test_help_starts_fast_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import vibeserve.cli; "
        "heavy = {'ray', 'pymoo', 'moocore', 'numpy', 'pydantic', 'openai', 'aiohttp'} & set(sys.modules); "
        "assert not heavy, heavy; print(time.perf_counter() - began)"
    )
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.6


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    assert "--json" in plain


def test_the_module_is_the_program() -> None:
    done = process(["--version"])
    assert (done.returncode, done.stdout.split()[0]) == (0, "vibeserve")


# --- errors -----------------------------------------------------------------------------------------------------------


def test_exit_codes() -> None:
    assert invoke("run", "--preset", "nope").exit_code == UsageError.exit_code == 2
    assert invoke("run", "--preset", "quickstart", "-s", "x=1").exit_code == ConfigError.exit_code == 3
    assert invoke("nonsense").exit_code == 2
    assert invoke("status").exit_code == 2
    assert invoke("bench", f"http://127.0.0.1:{free_port()}").exit_code == InfrastructureError.exit_code == 1
    assert BudgetError.exit_code == 4


def test_unknown_keys_are_explained_with_file_and_line_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[search]\nfrontier_bais = 0.3\n[budget]\nchildren = 0\n")
    done = process(["run", "--preset", "quickstart", "--config", "run.toml", "--json"], cwd=tmp_path)
    assert done.returncode == 3
    assert "run.toml:2: unknown key 'search.frontier_bais'; did you mean 'search.frontier_bias'?" in done.stderr
    assert "run.toml:4: budget.children" in done.stderr, "all errors at once"
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["exit_code"] == 3


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = process(["run", "--preset", "nope", "--debug"], cwd=tmp_path)
    assert "Traceback" in done.stderr
    assert "UsageError" in done.stderr


def test_run_wants_a_target() -> None:
    result = invoke("run")
    assert (result.exit_code, "--preset quickstart" in result.stderr) == (2, True)


# --- runs and candidates ----------------------------------------------------------------------------------------------


def test_dry_run_shows_origins_and_resources(tmp_path: Path) -> None:
    result = invoke("run", TEMPLATE, "--dry-run", "-s", "search.frontier_bias=0.9", "--seed", "5", "--json")
    assert result.exit_code == 0, result.output
    value = last_object(result)
    assert value["config"]["search.frontier_bias"] == {"value": 0.9, "origin": "-s"}
    assert value["config"]["seed"] == {"value": 5, "origin": "--seed"}
    assert value["config"]["budget.children"]["origin"] == "default"
    assert value["resources"]["wanted"] == {"cpus": 2, "gpus": 0}
    assert not (tmp_path / "runs").exists(), "a dry run writes nothing"


def test_front_prints_the_same_object_as_run(tmp_path: Path) -> None:
    small_run(tmp_path / "runs")
    value = last_object(invoke("front", "--json"))
    assert [member["id"] for member in value["front"]] == ["c000001", "c000003"]
    assert value["seed"]["output_throughput"]["direction"] == "max"
    assert value["baselines"].keys() == {"kv"}
    text = invoke("front").stdout
    for part in ("measured", "the seed", "23.0×", "baseline kv", "refs/candidates/c000001", "vibeserve deploy c000001"):
        assert part in text


def test_lists_and_status(tmp_path: Path) -> None:
    small_run(tmp_path / "runs")
    (tmp_path / "runs" / "20260101-000000-small" / "ledger").exists()
    value = last_object(invoke("ls", "--json"))
    assert [(run["run"], run["state"]) for run in value["runs"]] == [("20260101-000000-small", "finished")]
    status = last_object(invoke("status", "--json"))
    assert {budget["name"]: budget["limit"] for budget in status["budgets"]} == {"children": 25, "wall time": 300}
    assert "children 5/25" in invoke("status").stdout
    assert json.loads(invoke("ls", "--json", "--runs-dir", "elsewhere").stdout) == {"runs": [], "unreadable": []}


def test_one_damaged_run_does_not_hide_the_others(tmp_path: Path) -> None:
    small_run(tmp_path / "runs", "20260101-000000-good")
    bad = small_run(tmp_path / "runs", "20260102-000000-bad")
    segment = next(f for f in sorted((bad / "ledger").iterdir()) if f.stat().st_size > 1000)
    data = segment.read_bytes()
    segment.write_bytes(data[:300] + b"garbage" + data[307:])
    value = last_object(invoke("ls", "--json"))
    assert [run["run"] for run in value["runs"]] == ["20260101-000000-good"]
    assert [run["run"] for run in value["unreadable"]] == ["20260102-000000-bad"]
    assert invoke("status", "bad").exit_code == 1


def test_show_diff_and_log(tmp_path: Path) -> None:
    small_run(tmp_path / "runs")
    shown = last_object(invoke("show", "1", "--json"))
    assert (shown["operator"], shown["recipe"], shown["lineage"]) == ("recipe", "kv-cache", ["c000001", "c000000"])
    assert shown["other_metrics"]["p99_ttft_ms"]["n"] == 2
    text = invoke("show", "2").stdout
    assert "rejected at audit" in text
    assert "\x1b" not in text, "a candidate's text cannot steer the terminal"
    assert "+value = 4" in invoke("diff", "3").stdout
    against = last_object(invoke("diff", "c000003", "seed", "--json"))
    assert (against["against"], "-value = 1" in against["diff"]) == ("c000000", True)
    assert "line 3" in last_object(invoke("log", "2", "--json", "-n", "1"))["files"]["server.log"]
    assert invoke("log", "1").exit_code == 2
    assert "never became a commit" in invoke("diff", "5").stderr


def test_watch_follows_a_finished_run_and_json_gives_every_event(tmp_path: Path) -> None:
    small_run(tmp_path / "runs")
    lines = invoke("watch", "--json").stdout.splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert (kinds[0], kinds[-1], kinds.count("ended")) == ("epoch_started", "stopped", 6)
    assert "c000001 scored" in invoke("watch").stdout


def test_watch_follows_a_run_that_another_process_writes(tmp_path: Path) -> None:
    from population.events import Stopped

    run = FabricatedRun.create(tmp_path / "runs", "going")
    run.child(0, scored(100, 50), Operator.SEED)
    command = [sys.executable, "-u", "-m", "vibeserve", "watch", "going", "--json"]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True) as watcher:
        assert watcher.stdout is not None
        while json.loads(watcher.stdout.readline())["kind"] != "ended":
            pass
        run.child(1, scored(200, 40), parents=("c000000",))
        run.append(Stopped(reason="budget: children"))
        run.close()
        rest = watcher.stdout.read().splitlines()
        assert [json.loads(line)["kind"] for line in rest] == ["proposed", "mutation_done", "ended", "stopped"]
        assert watcher.wait(timeout=DEADLINE_S) == 0


def test_stop_signals_the_driver_of_this_host_and_marks_that_of_another(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from tests.vibeserve.fabricated import FabricatedRun\n"
        "run = FabricatedRun.create(Path(sys.argv[1]), 'going')\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", code, str(tmp_path / "runs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        assert last_object(invoke("ls", "--json"))["runs"][0]["state"] == "running"
        assert "was asked to drain" in invoke("stop").stdout
        assert driver.wait(timeout=DEADLINE_S) == -signal.SIGTERM
    assert last_object(invoke("ls", "--json"))["runs"][0]["state"] == "killed"
    assert "nothing to stop" in invoke("stop").stdout


@pytest.mark.tier("B")  # at least: what `init` writes is the user's
def test_run_resume_and_export_end_to_end(tmp_path: Path) -> None:
    """The real loop with the inline executor: a run, its object, a resume with a larger budget, an interruption."""
    invoke("init", "mine")
    settings = tmp_path / "mine" / "target.toml"
    quick = settings.read_text().replace("window_s = 1.0", "window_s = 0.4").replace("window_s = 2.0", "window_s = 0.6")
    settings.write_text(quick.replace("repeats = 2", "repeats = 1").replace("cpus = 2", "cpus = 1"))
    (tmp_path / "skills").mkdir()
    flag = "--allow-reduced-isolation"
    inline = ["-s", "cluster.executor=inline", "-s", "evaluation.final_repeats=0", "-s", "evaluation.profile=false"]
    done = process(
        ["run", "mine", *inline, "-s", "budget.children=1", "-s", "skills.dir=skills", "--json", flag], cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout.splitlines()[-1], parse_constant=pytest.fail)
    assert (value["children"], value["scored"], value["state"]) == (1, 1, "finished")
    assert "c000001 proposed: tune" in done.stderr
    assert json.loads(process(["front", "--json"], cwd=tmp_path).stdout)["front"] == value["front"]

    again = process(["resume", "-s", "budget.children=2", "--json", "--quiet"], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    more = json.loads(again.stdout.splitlines()[-1])
    assert (more["run"], more["children"], more["seed"]) == (value["run"], 2, value["seed"])


# --- targets and servers ----------------------------------------------------------------------------------------------


def test_init_writes_a_target_that_validate_accepts(tmp_path: Path) -> None:
    assert invoke("init", "mine").exit_code == 0
    value = last_object(invoke("validate", "mine", "--json"))
    assert (value["valid"], value["loads"]) == (True, ["high", "low"])
    assert invoke("init", "mine").exit_code == 2, "it never overwrites"


def test_validate_explains_every_defect_at_once(tmp_path: Path) -> None:
    invoke("init", "mine")
    (tmp_path / "mine" / "accuracy_checker" / "checker.py").unlink()
    objectives = tmp_path / "mine" / "objectives.toml"
    objectives.write_text(objectives.read_text().replace('"max"', '"up"'))
    result = invoke("validate", "mine", "--json")
    problems = last_object(result)
    assert result.exit_code == 3
    assert "checker.py" in result.stderr
    assert "'max' or 'min'" in result.stderr
    assert (problems["exit_code"], len(problems["problems"])) == (3, 2)


def test_judge_accepts_the_seed_and_rejects_a_wrong_server(tmp_path: Path) -> None:
    invoke("init", "mine")
    settings = tmp_path / "mine" / "target.toml"
    quick = settings.read_text().replace("window_s = 1.0", "window_s = 0.3").replace("window_s = 2.0", "window_s = 0.5")
    settings.write_text(quick)
    wrong = tmp_path / "wrong"
    invoke("init", wrong)
    server = wrong / "seed" / "server.py"
    server.write_text(server.read_text().replace("% 990", "% 989"))
    result = invoke("judge", "mine", wrong / "seed", "--json", "--allow-reduced-isolation")
    if look(allow_reduced=True, first_party=False).tier is None:
        assert (result.exit_code, "tier B" in last_object(result)["error"]) == (3, True)
        return
    assert (result.exit_code, last_object(result)["stage"]) == (1, "checker")
    assert "expected [" in last_object(result)["evidence"], "the checker's own words"


def test_bench_and_export_give_a_server_that_runs(tmp_path: Path) -> None:
    run = FabricatedRun.create(tmp_path / "runs", "exported")
    run.child(0, scored(100, 50), Operator.SEED)
    files = {f.name: f.read_bytes() for f in (TEMPLATE / "seed").iterdir() if f.is_file()}
    commit = run.repository.commit_tree(files, parents=[run.commits["c000000"]], message="real", number=1)
    from population.candidate import Proposal
    from population.events import Ended, MutationDone, Proposed
    from population.genome import Genome

    run.append(Proposed(proposal=Proposal(number=1, operator=Operator.RECIPE, parents=("c000000",))))
    run.append(MutationDone(number=1, commit=commit.sha, tree=commit.tree, genome=Genome()))
    run.append(Ended(number=1, evaluation=scored(200, 40)))
    run.close()
    invoke("init", run.folder / "target")

    result = invoke("export", "exported:1", "my-server", "--json")
    assert result.exit_code == 0, result.stderr
    exported = last_object(result)
    assert "| output_throughput | 200 tok/s" in (tmp_path / "my-server" / "README.md").read_text()
    assert invoke("export", "exported:1", "my-server").exit_code == 2, "it never overwrites"

    port = free_port()
    with template_server([exported["command"]], tmp_path, port, {"PORT": str(port)}) as url:
        options = ["--concurrency", "4", "--num-prompts", "8", "--input-len", "8", "--output-len", "4-6"]
        done = invoke("bench", url, *options, "--json", "--output", "result.json")
    assert done.exit_code == 0, done.output
    value = last_object(done)
    assert (value["completed"], value["failed"], value["model_id"]) == (8, 0, "my-model")
    assert value["median_ttft_ms"] > 0
    assert json.loads((tmp_path / "result.json").read_text())["completed"] == 8


def test_bench_refuses_what_makes_no_sense() -> None:
    result = invoke("bench", "http://127.0.0.1:1", "--rate", "3", "--concurrency", "2", "--input-len", "many")
    assert result.exit_code == 3
    assert "exclude each other" in result.stderr
    assert "--input-len many" in result.stderr
