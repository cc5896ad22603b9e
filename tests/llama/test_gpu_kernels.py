"""Triton kernels against plain arithmetic, on a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from trees import FASTEST, FUSED, make_tree

SCRIPT = Path(__file__).with_name("gpu_checks.py")


def has_gpu() -> bool:
    code = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


@pytest.mark.gpu
@pytest.mark.parametrize("recipes", [FUSED, FASTEST], ids=["fused", "fastest"])
def test_kernels_agree_with_plain_arithmetic(tmp_path: Path, recipes: tuple[str, ...]) -> None:
    if not has_gpu():
        pytest.skip("needs a CUDA device and PyTorch")
    tree = make_tree(tmp_path / "tree", *recipes, kv_cache__kv_gib=8)
    done = subprocess.run([sys.executable, "-I", SCRIPT, tree], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # bf16 rounds to 2^-9; the products of a layer round three times on their way.
    assert max(found["decode"] + found["prompts"]) < 2e-3, found
    assert max(error for errors in found["products"].values() for error in errors.values()) < 1e-2, found
    assert found["greedy"]
