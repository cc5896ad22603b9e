"""Decides where a live server's Python spends its time: py-spy samples it from outside, while load keeps it busy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from evaluators.machine import Machine
from evaluators.node import py_spy
from evaluators.process import Launch, NotExecutable, RunningProcess
from evaluators.profiling.evidence import Evidence, Spent, ranked
from evaluators.profiling.flame import counted, most_frequent, speedscope
from evaluators.sandbox import clean_environment
from evaluators.server import ServerUnderTest
from population.errors import InfrastructureError

TOOL = "py-spy"
SAMPLES_PER_S = 100
_START_S = 10.0
_WAITS = re.compile(r"(?:^|[;.])(?:select|wait|accept) \((?:[^();]*/)?(?:selectors|threading|socket)\.py(?::\d+)?\)$")


def sample(
    server: ServerUnderTest, seconds: float, scratch: Path, load: Callable[[], object], kept: Path | None = None
) -> Evidence:
    """`function (file)` by its share of the busy samples in which it ran itself, while `load` keeps the server busy.

    The most frequent stacks go to the folder `kept`, folded and as a flame graph.
    """
    program = py_spy()
    if program is None:
        return Evidence.without(TOOL, "py-spy is not installed")
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
        return Evidence.without(TOOL, str(error))
    if code != 0 or not stacks.is_file():
        return Evidence.without(TOOL, f"py-spy failed: {reason or code}")
    text = busy(stacks.read_text(encoding="utf-8", errors="replace"))
    if not text:
        return Evidence.without(TOOL, "no sample hit a thread of Python that was busy")
    if kept is not None:
        (kept / "stacks.txt").write_text(most_frequent(text), encoding="utf-8")
        (kept / "flame.speedscope.json").write_text(speedscope(text, "busy samples"), encoding="utf-8")
    return Evidence(rows=ranked(functions(text), of="busy samples", source=TOOL))


def busy(stacks: str) -> str:
    """The stacks that do something: py-spy tells waiting by bare names, and recent Pythons give qualified ones."""
    rows = (line for line in stacks.splitlines() if not _WAITS.search(line.rpartition(" ")[0]))
    return "".join(f"{row}\n" for row in rows)


def functions(stacks: str) -> list[Spent]:
    """Samples of each innermost function of folded stacks."""
    counts: Counter[str] = Counter()
    for stack, number in counted(stacks).items():
        counts[_function(stack.split(";")[-1])] += number
    return [Spent(name=name, amount=number) for name, number in counts.items()]


def _function(frame: str) -> str:
    """`forward (model.py:120)` → `forward (model.py)`."""
    return re.sub(r"\(([^()]*/)?([^()/]*?)(:\d+)?\)$", r"(\2)", frame)
