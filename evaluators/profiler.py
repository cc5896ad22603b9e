"""Decides where a server's time goes: samples per function, a hint for the next change and never a verdict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from evaluators.machine import Machine
from evaluators.node import py_spy
from evaluators.process import Launch, NotExecutable, RunningProcess
from evaluators.sandbox import clean_environment
from evaluators.server import ServerUnderTest
from population.errors import InfrastructureError

SAMPLES_PER_S = 100
MOST_FUNCTIONS = 12
_START_S = 10.0


def profile(
    server: ServerUnderTest, seconds: float, scratch: Path, load: Callable[[], object]
) -> dict[str, float | str]:
    """`function (file)` → share of the busy samples (0..1) in which it ran itself, while `load` keeps the server busy.

    Uses py-spy where there is one. A profiler that is missing or fails gives {"profiler": why} and nothing else.
    """
    program = py_spy()
    if program is None:
        return {"profiler": "py-spy is not installed"}
    stacks, pid = scratch / "stacks.txt", Machine().unwrapped(server.process.pid)
    command = (
        program, "record", "--pid", str(pid), "--duration", str(max(1, round(seconds))),
        "--rate", str(SAMPLES_PER_S), "--format", "raw", "--output", str(stacks), "--subprocesses", "--nonblocking",
    )  # fmt: skip
    launch = Launch(
        command=command, workspace=scratch, env=clean_environment(scratch / "home"), log=scratch / "py-spy.log"
    )
    try:
        with RunningProcess(launch) as recorder:
            load()
            code = recorder.wait(seconds + _START_S)
            reason = recorder.log_tail(2)
    except (NotExecutable, InfrastructureError) as error:
        return {"profiler": str(error)}
    if code != 0 or not stacks.is_file():
        return {"profiler": f"py-spy failed: {reason or code}"}
    return shares(stacks.read_text(encoding="utf-8", errors="replace"))


def shares(stacks: str) -> dict[str, float | str]:
    """From folded stacks (`frame;frame count` per line) the share of each innermost function, largest first."""
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, number = line.rpartition(" ")
        if stack and number.isdigit():
            counts[_function(stack.split(";")[-1])] += int(number)
    total = sum(counts.values())
    return {name: round(count / total, 4) for name, count in counts.most_common(MOST_FUNCTIONS)}


def _function(frame: str) -> str:
    """`forward (model.py:120)` → `forward (model.py)`."""
    return re.sub(r"\(([^()]*/)?([^()/]*?)(:\d+)?\)$", r"(\2)", frame)
