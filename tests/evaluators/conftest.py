"""Toy servers as real processes, and the toy target as something to change."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluators.evaluator import EvaluationTask, Lease
from evaluators.pipeline import LocalEvaluator
from evaluators.sandbox import PlainSandbox, clean_environment
from evaluators.server import ServerCommand, ServerUnderTest
from evaluators.target_schema import ServerTable

HOSTILE = Path(__file__).parent / "servers" / "hostile.py"
TOY = Path(__file__).parent.parent / "toy_target"
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_torch_*.py"]
"""Servers that import PyTorch need the extra `torch`."""


@pytest.fixture
def hostile(tmp_path: Path) -> Callable[..., ServerUnderTest]:
    """`hostile(mode)`: a server under test that misbehaves in that way."""

    def make(
        mode: str, port: int | None = None, ready_timeout_s: float = 10.0, grace_s: float = 0.3
    ) -> ServerUnderTest:
        table = ServerTable(
            command=("{python}", str(HOSTILE), mode, "{port}"), ready_timeout_s=ready_timeout_s, stop_grace_s=grace_s
        )
        workspace = tmp_path / "workspace"
        workspace.mkdir(exist_ok=True)
        command = ServerCommand(
            table=table,
            workspace=workspace,
            log=tmp_path / "server.log",
            env=clean_environment(tmp_path / "home", extra={"DECLARED": "yes"}),
            placeholders={"python": sys.executable},
        )
        return ServerUnderTest(command, PlainSandbox(), port)

    return make


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A copy of the toy target that a test may spoil."""
    return Path(shutil.copytree(TOY, tmp_path / "toy"))


@pytest.fixture(scope="session")
def artifacts_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def evaluator(artifacts_cache: Path) -> LocalEvaluator:
    """Never repeats a noisy measurement, so that tests are as fast on a busy machine."""
    return LocalEvaluator(cache=artifacts_cache, noise_retries=0)


@pytest.fixture
def lease(tmp_path: Path) -> Lease:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Lease(cpus=tuple(sorted(os.sched_getaffinity(0)))[:2], scratch=scratch)


@pytest.fixture
def task(toy: Path, tmp_path: Path) -> EvaluationTask:
    """The toy target's seed, evaluated once, with everything kept; it runs where there is no isolation, too."""
    return EvaluationTask(
        candidate="c000000",
        workspace=toy / "seed",
        target=toy,
        trace_seed=7,
        content_seed=11,
        repeats=1,
        first_party=True,
        output=tmp_path / "output",
    )
