"""Drivers are killed at random points: nothing acknowledged is lost or doubled, at most one stage is repeated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.vibeserve.recorded import TOY

KILLS, SEEDS = 200, (1, 2)
_DEADLINE_S = 400.0
_CHECKOUT = TOY.parent.parent


def start(folder: Path, seed: int, kills: int, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.chaos.kills", str(folder), str(seed), str(kills), *flags]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(_CHECKOUT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_CHECKOUT, env=environment, text=True)


def report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=_DEADLINE_S)
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    return report


def test_two_hundred_kills_lose_nothing_and_change_nothing(tmp_path: Path) -> None:
    processes = [start(tmp_path / str(seed), seed, KILLS // len(SEEDS)) for seed in SEEDS]
    reports = [report_of(process) for process in processes]
    assert [report["violations"] for report in reports] == [[]] * len(SEEDS)
    assert sum(report["kills"] for report in reports) >= KILLS
    assert all(report["equal_populations"] == report["runs"] > 0 for report in reports)
    assert max(report["most_repeated_by_one_driver"] for report in reports) == 1
    assert sum(report["acknowledged"] for report in reports) > KILLS


def test_a_driver_that_acknowledged_before_it_wrote_would_be_caught(tmp_path: Path) -> None:
    report = report_of(start(tmp_path / "early", 3, 3, "--acknowledge-early"))
    assert any("acknowledged records are lost" in violation for violation in report["violations"])
