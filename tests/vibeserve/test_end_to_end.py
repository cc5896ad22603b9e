"""The whole product as a user runs it: real processes, a local Ray, real servers under real load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from population.candidate import candidate_id
from population.events import Ended, Event, Proposed
from population.ledger import read_events
from population.replay import State
from tests.vibeserve.recorded import TOY
from vibeserve.layers import CHECKOUT

DEADLINE_S = 150.0


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "vibeserve", *args]


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "XDG_CACHE_HOME": str(tmp_path / "cache"), "LC_ALL": "C.UTF-8"}


def invoke(tmp_path: Path, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        command(*args), capture_output=True, text=True, env=environment(tmp_path), timeout=DEADLINE_S, check=False
    )
    assert result.returncode == code, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    return result


def toy_run(tmp_path: Path, *overrides: str) -> list[str]:
    # One repeat: no test here asks how sure a number is.
    options = [f"skills.dir={TOY / 'skills'}", "evaluation.profile=false", "evaluation.repeats=1", *overrides]
    flags = [flag for option in options for flag in ("-s", option)]
    return ["run", str(TOY), "--runs-dir", str(tmp_path / "runs"), "--seed", "3", "--json", *flags]


def events_of(run_dir: Path) -> list[Event]:
    return list(read_events(run_dir / "ledger"))


def until(what: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (value := what()):
        assert time.monotonic() < deadline, "the condition was never met"
        assert process is None or process.poll() is None, "the process ended before the condition was met"
        time.sleep(0.05)
    return value


def runs_of(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "runs"
    return [path for path in folder.iterdir() if (path / "ledger").is_dir()] if folder.is_dir() else []


def test_run_front_show_diff_export_verify(tmp_path: Path) -> None:
    result = invoke(tmp_path, *toy_run(tmp_path, "budget.children=5"))
    summary = json.loads(result.stdout.splitlines()[-1])
    (run_dir,) = runs_of(tmp_path)
    assert summary["children"] == 5
    assert summary["scored"] + sum(summary["rejected"].values()) == 5
    assert summary["front"]
    assert set(summary["front"][0]["metrics"]) == {"output_throughput", "median_ttft_ms", "median_tpot_ms"}
    assert "batched" in summary["baselines"]
    assert "measured" in result.stderr
    best = summary["front"][0]["id"]

    again = json.loads(invoke(tmp_path, "front", str(run_dir), "--json").stdout.splitlines()[-1])
    assert again["front"] == summary["front"]
    assert best in invoke(tmp_path, "show", best, "--run", str(run_dir)).stdout
    assert invoke(tmp_path, "diff", best, "seed", "--run", str(run_dir)).returncode == 0
    invoke(tmp_path, "export", best, str(tmp_path / "server"), "--run", str(run_dir))
    assert (tmp_path / "server" / "server" / "server.py").is_file()
    claim = invoke(tmp_path, "verify", best, "--pairs", "2", "--run", str(run_dir), "--json")
    found = json.loads(claim.stdout.splitlines()[-1])
    assert set(found["gains"]) == set(summary["front"][0]["metrics"])
    assert found["claim"] is False and "2 pairs" in found["not_a_claim_because"][0]
    assert "not a claim: 2 pairs, at least 10 are needed" in claim.stderr
    assert len(found["devices"]) == 1
    assert list((run_dir / "claims").glob("*.json"))


def test_kill_9_again_and_again_and_resume_lose_nothing(tmp_path: Path) -> None:
    """Three real drivers on Ray are killed: in a stage of the first children, while one resumes, and later on."""
    args, before = toy_run(tmp_path, "budget.children=6", "evaluation.final_repeats=0"), list[Event]()
    for ended in (2, 2, 4):
        process = subprocess.Popen(
            command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(tmp_path)
        )
        until(partial(_has_ended, tmp_path, ended, len(before)), process)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        (run_dir,) = runs_of(tmp_path)
        seen, before = before, events_of(run_dir)
        assert before[: len(seen)] == seen

        def no_servers() -> bool:
            lines = (" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))
            return not any(str(tmp_path) in line for line in lines)

        until(no_servers)
        args = ["resume", str(run_dir), "--json"]
    invoke(tmp_path, *args)
    after = events_of(run_dir)
    assert after[: len(before)] == before
    ended_once = Counter(e.number for e in after if isinstance(e, Ended))
    proposed = [e.proposal.number for e in after if isinstance(e, Proposed)]
    assert proposed == list(range(7))
    assert ended_once == Counter(proposed)
    assert not State.replay(after).pending


def _has_ended(tmp_path: Path, children: int, seen: int) -> bool:
    """Whether so many children have ended, and this driver has recorded something."""
    events = events_of(runs_of(tmp_path)[0]) if runs_of(tmp_path) else []
    return len(events) > seen and sum(isinstance(e, Ended) for e in events) >= children


def test_ctrl_c_drains_and_says_how_to_resume(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(*toy_run(tmp_path, "budget.children=50")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
    )
    until(lambda: runs_of(tmp_path) and any(isinstance(e, Ended) for e in events_of(runs_of(tmp_path)[0])), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert "resume" in err
    assert json.loads(out.splitlines()[-1])["state"] == "stopped"
    state = State.replay(events_of(runs_of(tmp_path)[0]))
    assert candidate_id(0) in state.archive.candidates
    # What had not begun is on record, for a resume to begin with.
    assert {*state.archive.children, *state.pending} == set(range(state.next_number))
    assert not state.archive.children.keys() & state.pending.keys()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["-s", "search.frontier_bais=0.9"], 3, "did you mean 'search.frontier_bias'"),
        (["-s", "cluster.address=127.0.0.1:1"], 1, "expected a Ray cluster at 127.0.0.1:1"),
        (["-s", "skills.dir=/nonexistent"], 3, "expected a folder of skills"),
        (["-s", "cluster.labels.rack=none-such"], 1, "rack"),
    ],
    ids=["unknown key", "no cluster", "no skills", "no node fits"],
)
def test_bad_input_is_explained(tmp_path: Path, args: list[str], code: int, said: str) -> None:
    result = invoke(tmp_path, *toy_run(tmp_path), *args, code=code)
    assert said in " ".join(result.stderr.split())
