"""Foreign CPU time is told from the server's and our own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import pytest

from evaluators.load.result import LoadResult
from evaluators.load.workload import Load
from evaluators.machine import Machine, busy_cpu_s
from evaluators.node import probe
from evaluators.noise import CpuMeter, CpuWindow
from evaluators.process import Launch, RunningProcess
from evaluators.repeat import Repeat, readings
from population.errors import InfrastructureError
from population.evaluation import Rejected

SPIN = "import time\nend = time.monotonic() + 60\nprint('up', flush=True)\nwhile time.monotonic() < end: pass"


def spin(tmp_path: Path, name: str) -> RunningProcess:
    command = (sys.executable, "-c", SPIN)
    return RunningProcess(Launch(command=command, workspace=tmp_path, env={}, log=tmp_path / name))


def test_a_neighbour_is_foreign_and_the_server_is_not(tmp_path: Path) -> None:
    with spin(tmp_path, "server") as server, spin(tmp_path, "neighbour") as neighbour:
        meter = CpuMeter((), server.supervisor_pid)
        machine = Machine()
        before_s = machine.cpu_s({neighbour.pid})
        deadline = time.monotonic() + 20
        while Machine().cpu_s({neighbour.pid}) - before_s < 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        window = meter.read()
    assert window.server_s > 0.05
    assert window.foreign_share * window.elapsed_s > 0.2
    assert window.noisy == (window.foreign_share > 0.15)


def test_own_covers_this_process_and_its_parents() -> None:
    machine = Machine()
    own = machine.own()
    assert {os.getpid(), os.getppid()} <= own
    assert 1 not in own
    assert machine.cpu_s(own) > 0
    assert busy_cpu_s(()) > 0


def test_a_ray_that_does_not_run_us_is_a_neighbour(tmp_path: Path) -> None:
    stranger = tmp_path / "ray::stranger"
    stranger.symlink_to(sys.executable)
    command = (str(stranger), "-c", "print('up', flush=True); input()")
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, start_new_session=True) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        machine = Machine()
        assert machine.processes[process.pid].name.startswith("ray::")
        assert process.pid in machine.tree(os.getpid()) <= machine.own(), "what we started is ours, whatever its name"
        machine.processes[process.pid] = replace(machine.processes[process.pid], parent=1)
        assert process.pid not in machine.own()
        me = machine.processes[os.getpid()]
        machine.processes[me.parent] = replace(machine.processes[me.parent], name="raylet")
        assert process.pid in machine.own(), "the Ray that runs us"
        process.communicate(b"\n")


def test_what_ends_takes_nothing_back() -> None:
    """The CPU time of a process of ours that somebody else collects is gone; that is no negative overhead."""
    assert CpuWindow(elapsed_s=1.0, busy_s=0.5, own_s=0.0, server_s=0.0).foreign_share == 0.5
    meter = CpuMeter((), 0)
    meter._own_s += 100.0
    window = meter.read()
    assert window.own_s == 0.0
    assert window.foreign_share <= (os.cpu_count() or 1) + 0.5


def test_foreign_share_is_never_negative() -> None:
    window = CpuWindow(elapsed_s=1.0, busy_s=0.5, own_s=0.4, server_s=0.3)
    assert window.foreign_share == 0.0
    assert not window.noisy
    assert CpuWindow(elapsed_s=0.0, busy_s=1.0, own_s=0.0, server_s=0.0).foreign_share == 0.0


def test_silence_is_charged_to_the_server_only_where_nobody_else_was_busy() -> None:
    load = Load(name="low", kind="open", rate_per_s=1.0, window_s=0.3)
    silent = LoadResult(load=load, metrics={}, responses=[], warnings=[], errors=[], flags=frozenset())
    quiet = CpuWindow(elapsed_s=1.0, busy_s=0.5, own_s=0.3, server_s=0.2)
    loud = CpuWindow(elapsed_s=1.0, busy_s=1.9, own_s=0.1, server_s=0.1)
    verdict = readings(Repeat(results=(silent,), window=quiet), {})
    assert isinstance(verdict, Rejected) and "no verified token in its window of 0.3 s" in verdict.reason
    with pytest.raises(InfrastructureError, match=r"while others used 1\.7 of its CPUs"):
        readings(Repeat(results=(silent,), window=loud), {})
    with pytest.raises(InfrastructureError, match=r"and python \(7\) its GPUs"):
        readings(Repeat(results=(silent,), window=quiet, foreign_gpu=("python (7)",)), {})


def test_probe_says_what_to_do() -> None:
    checks = {check.name: check for check in probe()}
    assert set(checks) == {"system", "cpus", "bubblewrap", "py-spy", "gpus"}
    assert all(check.ok or check.cure for check in checks.values())
    assert all(check.detail for check in checks.values())
