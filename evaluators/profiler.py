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
MOST_STACK_BYTES = 12_000
_START_S = 10.0
_WAITS = re.compile(r"(?:^|[;.])(?:select|wait|accept) \((?:[^();]*/)?(?:selectors|threading|socket)\.py(?::\d+)?\)$")
_PROCESS = re.compile(r'^process \d+:"[^"]*";')
"""What py-spy puts in front with `--subprocesses`: a long command line, the same in nearly every stack."""


def profile(
    server: ServerUnderTest, seconds: float, scratch: Path, load: Callable[[], object], kept: Path | None = None
) -> dict[str, float | str]:
    """`function (file)` → share of the busy samples (0..1) in which it ran itself, while `load` keeps the server busy.

    The most frequent stacks are kept in the file `kept`. Uses py-spy where there is one; a profiler that is missing or
    fails gives {"profiler": why} and nothing else.
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
    text = busy(stacks.read_text(encoding="utf-8", errors="replace"))
    if kept is not None:
        kept.write_text(most_frequent(text), encoding="utf-8")
    return shares(text)


def busy(stacks: str) -> str:
    """The stacks that do something: py-spy tells waiting by bare names, and recent Pythons give qualified ones."""
    rows = (line for line in stacks.splitlines() if not _WAITS.search(line.rpartition(" ")[0]))
    return "".join(f"{row}\n" for row in rows)


def most_frequent(stacks: str) -> str:
    """The folded stacks that were seen most often, as many as a flame graph needs and a result can carry.

    The rarest come first: what is cut off a file on its way is its beginning.
    """
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, number = line.rpartition(" ")
        if number.isdigit():
            counts[_PROCESS.sub("", stack)] += int(number)
    kept, size = [], 0
    for stack, count in counts.most_common():
        line = f"{stack} {count}\n"
        size += len(line.encode())
        if size > MOST_STACK_BYTES:
            break
        kept.append(line)
    return "".join(reversed(kept))


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
