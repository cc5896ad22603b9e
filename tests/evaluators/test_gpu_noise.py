"""Who computes on a GPU, told from what nvidia-smi prints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evaluators.gpu_noise import GpuProcess, foreign, foreign_gpu_processes, parse
from evaluators.noise import CpuWindow
from evaluators.repeat import Repeat

LISTING = "4711, /opt/venv/bin/python\n4712, [Not Found]\n[N/A], [N/A]\nNo running processes found\n, x\n"


def test_lines_that_are_processes() -> None:
    assert parse(LISTING) == [
        GpuProcess(pid=4711, name="/opt/venv/bin/python"),
        GpuProcess(pid=4712, name="[Not Found]"),
    ]
    assert parse("") == []


def test_ours_and_daemons_are_not_foreign() -> None:
    listed = [GpuProcess(pid=n, name=name) for n, name in ((9, "b"), (3, "server"), (5, "nvidia-cuda-mps-server"))]
    assert foreign(listed, {3, 4}, {3, 4, 5}) == [GpuProcess(pid=9, name="b")]
    assert foreign(listed[1:], {3, 4}, {3, 4, 5}) == []


def test_another_pid_namespace_tells_nothing() -> None:
    assert foreign([GpuProcess(pid=70_000, name="python")], {3}, {3, 4}) == []


@pytest.fixture
def nvidia_smi(tmp_path: Path) -> Path:
    """A program that lists its parent's child (itself's parent: us), a neighbour, and what it was asked."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho "1, init"\necho "{os.getpid()}, pytest"\n')
    program.chmod(0o755)
    return program


def test_a_neighbour_on_the_leased_gpus(nvidia_smi: Path) -> None:
    assert foreign_gpu_processes(("0", "GPU-7f"), os.getpid(), str(nvidia_smi)) == ("init (1)",)
    asked = (nvidia_smi.parent / "asked").read_text()
    assert asked.startswith("-i 0,GPU-7f --query-compute-apps=pid,process_name")


def test_without_gpus_or_nvidia_smi_nothing_is_said(nvidia_smi: Path) -> None:
    assert foreign_gpu_processes((), os.getpid(), str(nvidia_smi)) == ()
    assert not (nvidia_smi.parent / "asked").exists()
    assert foreign_gpu_processes(("0",), os.getpid(), str(nvidia_smi.parent / "none")) == ()
    nvidia_smi.write_text("#!/bin/sh\nexit 9\n")
    assert foreign_gpu_processes(("0",), os.getpid(), str(nvidia_smi)) == ()


def test_a_foreign_gpu_process_makes_a_repeat_noisy() -> None:
    quiet = CpuWindow(elapsed_s=1.0, busy_s=0.5, own_s=0.3, server_s=0.2)
    loud = CpuWindow(elapsed_s=1.0, busy_s=0.9, own_s=0.1, server_s=0.1)
    calm = Repeat(results=(), window=quiet)
    shared = Repeat(results=(), window=quiet, foreign_gpu=("python (7)",))
    assert not calm.noisy
    assert shared.noisy
    assert Repeat(results=(), window=loud).noisy
    assert min(shared, Repeat(results=(), window=loud), calm, key=lambda r: r.disturbance) is calm
