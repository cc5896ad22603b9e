"""Builds the tiny-llama artifacts and starts the seed server once per test session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent)]
from tiny_llama import TARGET, run_script, running_server  # noqa: E402

sys.path[:0] = [str(TARGET / "reference"), str(TARGET.parents[1] / "benchmarks" / "tiny_llama")]


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-llama")
    done = run_script("reference/build.py", "--output", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def reference(artifacts: Path) -> Any:
    from model import load_reference

    return load_reference(artifacts)


@pytest.fixture(scope="session")
def seed_url(artifacts: Path) -> Iterator[str]:
    with running_server(TARGET / "seed", artifacts) as (url, _):
        yield url
