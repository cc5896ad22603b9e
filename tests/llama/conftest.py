"""Builds the tiny artifacts once; leaves out what computes the model where there is no PyTorch."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent)]
from llama import TARGET, run_script  # noqa: E402

NEEDED = ("torch", "safetensors")
"""The extra `torch`; tests/conftest.py says in the header what is left out without it."""
collect_ignore_glob = [] if all(map(importlib.util.find_spec, NEEDED)) else ["test_torch_*.py"]


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama-tiny")
    done = run_script("reference/build.py", "--output", folder, "--config", TARGET / "reference" / "tiny.json")
    assert done.returncode == 0, done.stderr
    return folder
