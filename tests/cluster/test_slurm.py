"""deploy/slurm on one machine that stands for two nodes: a stub of srun, and everything else as it is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from population.events import Ended, Stopped
from population.ledger import read_events
from tests.cluster.submitting import DEADLINE_S, until
from vibeserve.layers import CHECKOUT
from vibeserve.lifecycle import RunState, run_state

SBATCH = CHECKOUT / "deploy" / "slurm" / "vibeserve.sbatch"
RUN_OR_RESUME = CHECKOUT / "deploy" / "run-or-resume.sh"


@pytest.mark.parametrize("script", [SBATCH, RUN_OR_RESUME], ids=lambda path: str(path.name))
def test_a_script_is_a_script(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in text


@pytest.mark.parametrize(
    ("existing", "expected"), [((), "run"), (("x-search-1",), "resume"), (("y-other", "z-search-11"), "run")]
)
@pytest.mark.parametrize("take_over", [{}, {"TAKE_OVER": "yes"}], ids=["as found", "take over"])
def test_a_name_is_resumed_where_it_exists(
    tmp_path: Path, existing: tuple[str, ...], expected: str, take_over: dict[str, str]
) -> None:
    runs = tmp_path / "runs with space"
    (runs / "a-search-1").mkdir(parents=True)  # cut off before it had a ledger
    for name in existing:
        (runs / name / "ledger").mkdir(parents=True)
    tools = tmp_path / "bin"
    tools.mkdir()
    executable(tools / "python", '#!/bin/sh\nprintf "%s\\n" "$@"\n')
    done = subprocess.run(
        ["bash", str(RUN_OR_RESUME), "search-1", "TARGET", "--seed", "3"],
        env={"PATH": f"{tools}:{os.environ['PATH']}", "VIBESERVE_RUNS_DIR": str(runs)} | take_over,
        capture_output=True,
        text=True,
        check=True,
    )
    options = {
        "run": ["TARGET", "--seed", "3", "--name", "search-1", "--runs-dir", str(runs)],
        "resume": [str(runs / "x-search-1"), *(["--take-over"] if take_over else [])],
    }
    assert done.stdout.splitlines() == ["-m", "vibeserve", expected, *options[expected]]


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


_SRUN = """#!/bin/bash
# Starts the command once per task on this machine, and passes SIGTERM on, as srun does. One after the other: raylets
# that start at once in one folder take the same names, which those of two machines never do.
for word in "$@"; do
  case $word in
    --ntasks=*) tasks=${word#*=}; shift ;;
    -*) shift ;;
    *) break ;;
  esac
done
children=()
trap 'kill -TERM "${children[@]}" 2> /dev/null' TERM
for ((task = 0; task < tasks; task++)); do
  "$@" > "$HOME/task.$task" 2>&1 &
  children+=($!)
  until grep -q "Ray runtime started" "$HOME/task.$task"; do
    kill -0 $! 2> /dev/null || { cat "$HOME/task.$task"; break; }
    sleep 0.2
  done
done
while kill -0 "${children[@]}" 2> /dev/null; do wait; done
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a batch step on two nodes with one CPU each, which are this machine."""
    tools = tmp_path / "bin"
    tools.mkdir()
    executable(tools / "srun", _SRUN)
    executable(tools / "scontrol", f'#!/bin/sh\necho "$@" >> {tmp_path}/scontrol.log\n')
    job = str(os.getpid())
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "VIBESERVE_", "PYTHON", "COV_"))}
    yield inherited | {
        "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "VIBESERVE_RUNS_DIR": str(tmp_path / "runs"),
        "SLURM_SUBMIT_DIR": str(CHECKOUT),
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_ON_NODE": "1",
    }
    shutil.rmtree(Path(tempfile.gettempdir(), f"vs-{job}"), ignore_errors=True)


def test_a_search_on_slurm_drains_before_the_limit_and_goes_on_when_it_is_requeued(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    toy = CHECKOUT / "tests" / "toy_target"
    options = ["budget.children=4", f"skills.dir={toy / 'skills'}", "evaluation.profile=false"]
    command = ["bash", str(SBATCH), str(toy), *(flag for o in options for flag in ("-s", o))]
    command += ["-s", "evaluation.repeats=1", "-s", "evaluation.final_repeats=0"]
    said = tmp_path / "slurm.log"
    with said.open("w") as log, ExitStack() as ends:

        def start(restarts: int) -> subprocess.Popen[bytes]:
            environment = slurm | {"SLURM_RESTART_COUNT": str(restarts)}
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            ends.callback(process.wait, DEADLINE_S)
            ends.callback(process.terminate)  # drains, and ends its Ray, whatever has failed here
            return process

        first = start(0)

        def a_child_ended() -> bool:
            assert first.poll() is None, said.read_text()[-3000:]
            return any(isinstance(e, Ended) and e.number > 0 for e in events_of(tmp_path))

        until(a_child_ended, "the first child")
        first.send_signal(signal.SIGUSR1)
        assert first.wait(DEADLINE_S) == 130, said.read_text()[-3000:]
        assert (tmp_path / "scontrol.log").read_text() == f"requeue {slurm['SLURM_JOB_ID']}\n"
        assert "2 of 2 nodes have joined" in said.read_text()
        drained = events_of(tmp_path)
        assert isinstance(drained[-1], Stopped) and drained[-1].reason == "interrupted"
        assert not list((tmp_path / "runs").glob(".slurm-*.token"))

        assert start(1).wait(DEADLINE_S) == 0, said.read_text()[-3000:]
    events = events_of(tmp_path)
    assert events[: len(drained)] == drained
    assert run_state(events) is RunState.FINISHED
    assert Counter(e.number for e in events if isinstance(e, Ended)) == Counter(range(5))
    assert (tmp_path / "scontrol.log").read_text().count("requeue") == 1


def events_of(folder: Path) -> list[Any]:
    runs = [run for run in (folder / "runs").glob("*-slurm-*") if (run / "ledger").is_dir()]
    assert len(runs) <= 1
    return list(read_events(runs[0] / "ledger")) if runs else []
