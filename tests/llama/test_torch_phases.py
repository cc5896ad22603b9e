"""Phases of a step have names where a profiler asks for them, and cost nothing where none does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from trees import FASTEST, make_tree

FAKE = """
from functools import wraps

def annotate(name):
    def ranged(function):
        @wraps(function)
        def call(*arguments):
            return function(*arguments)
        call.range = name
        return call
    return ranged
"""
LOOK = """
import json, sys
sys.path[:0] = sys.argv[1:]
from engine import Engine
from runner import Runner, Step
from scheduler import Scheduler
steps = (Scheduler.schedule, Runner.launch, Step.tokens, Engine._take_in)
print(json.dumps([getattr(step, "range", None) for step in steps]))
"""


def named(tree: Path, library: Path, **asked: str) -> list[str | None]:
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", LOOK, tree, library],
        env={"PATH": os.environ["PATH"], **asked}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[str | None] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("recipes", [(), FASTEST], ids=["seed", "fastest"])
def test_a_steps_phases_are_named_for_whoever_asks(tmp_path: Path, recipes: tuple[str, ...]) -> None:
    tree, library = make_tree(tmp_path / "tree", *recipes), tmp_path / "library"
    library.mkdir()
    (library / "nvtx.py").write_text(FAKE)
    assert named(tree, library, NVTX_RANGES="1") == ["schedule", "launch", "wait", "take in"]
    assert named(tree, library) == [None] * 4, "the functions themselves: a step does nothing more"
    assert named(tree, tmp_path / "none", NVTX_RANGES="1") == [None] * 4, "without the package there are no ranges"
