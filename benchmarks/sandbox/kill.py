"""Measures how long process trees live that nobody wants any more: owner killed, deadline passed, cancelled.

`python -m benchmarks.sandbox.kill [--rounds 70] [--output benchmarks/sandbox/results.md]`

Each tree has daemons in sessions of their own, processes that ignore SIGTERM, and one that forks all the time. Its
owner plays the Ray worker. A time runs from the SIGKILL of the owner, from the deadline, or from the signal that
cancels (as `ray.cancel` raises in the worker), until the last process is gone, its supervisor included; then every
process of the machine is asked for the tree's mark, and a survivor is one that bears it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.chaos.kills import replace_section
from benchmarks.sandbox.facts import machine
from evaluators.bubblewrap import BubblewrapSandbox
from evaluators.launch import Launch
from evaluators.lineage import descendants
from evaluators.process import RunningProcess
from evaluators.sandbox import PlainSandbox, Sandbox

MARK = "<!-- kill -->"
GOAL_MS = 100.0
CAUSES = ("owner killed", "timed out", "cancelled")
_PATIENCE_S = 10.0
_TIMEOUT_S = 0.05
_TREE = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def rest():
    while True: time.sleep(60)
for number in range(12):
    if os.fork() == 0:
        if number % 3 == 0:
            os.setsid()
            if os.fork(): os._exit(0)
        elif number == 1:
            while True:
                if os.fork() == 0:
                    time.sleep(0.02); os._exit(0)
                with __import__("contextlib").suppress(ChildProcessError):
                    while os.waitpid(-1, os.WNOHANG)[0]: pass
                time.sleep(0.002)
        rest()
print("up", flush=True)
rest()
"""


@dataclass(frozen=True, slots=True)
class Death:
    """How one tree ended."""

    processes: int
    milliseconds: float
    survivors: int


def main() -> int:
    """One table, and exit code 1 if something survived or the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=70, help="trees per tier and cause")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    sandboxes: dict[str, Sandbox] = {"A": BubblewrapSandbox(), "C": PlainSandbox()}
    assert sandboxes["A"].gaps is not None  # asks for the control groups once, before the owners are forked
    found: dict[tuple[str, str], list[Death]] = {(tier, cause): [] for tier in sandboxes for cause in CAUSES}
    with tempfile.TemporaryDirectory(prefix="vibeserve-") as folder:
        for _ in range(given.rounds):
            for tier, cause in found:
                found[tier, cause].append(_death(sandboxes[tier], cause, Path(folder)))
    text = table(found)
    print(text)
    if given.output is not None:
        replace_section(given.output, MARK, text)
    deaths = [death for group in found.values() for death in group]
    return 1 if any(death.survivors for death in deaths) or _p99([d.milliseconds for d in deaths]) > GOAL_MS else 0


def _death(sandbox: Sandbox, cause: str, folder: Path) -> Death:
    """Start a tree in an owner of its own, end it, wait until it is gone."""
    mark = f"vibeserve-tree-{secrets.token_hex(8)}"
    hear, say = os.pipe()
    owner = os.fork()
    if owner == 0:
        _own(sandbox, cause, folder, mark, say)
    os.close(say)
    with open(hear) as lines:
        supervisor = int(lines.readline())
        tree = [supervisor, *descendants(supervisor)]
        watched = [descriptor for pid in tree if (descriptor := _pidfd(pid)) is not None]
        began = time.monotonic()
        if cause == "owner killed":
            os.kill(owner, signal.SIGKILL)
        elif cause == "cancelled":
            os.kill(owner, signal.SIGINT)
        else:
            os.kill(owner, signal.SIGUSR1)  # "go": the deadline comes after a wait that does not count
            began = float(lines.readline())
        _await_all(watched)
        ended = time.monotonic()
    survivors = list(_bearers(mark))
    os.waitpid(owner, 0)
    return Death(processes=len(tree), milliseconds=(ended - began) * 1e3, survivors=len(survivors))


def _own(sandbox: Sandbox, cause: str, folder: Path, mark: str, say: int) -> None:
    """The worker's part: an evaluation's command, until its deadline, a cancellation or a SIGKILL."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    launch = Launch(
        command=(sys.executable, "-I", "-S", "-c", _TREE), workspace=folder,
        env={"MARK": mark, "PATH": "/usr/bin:/bin", "HOME": "/home"}, log=folder / "log",
    )  # fmt: skip
    try:
        with sandbox.launch(launch) as process:
            _await_up(process)
            os.write(say, f"{process.supervisor_pid}\n".encode())
            if cause == "timed out":
                signal.sigwait([signal.SIGUSR1])
                os.write(say, f"{time.monotonic() + _TIMEOUT_S}\n".encode())
                process.wait(_TIMEOUT_S)
            else:
                process.wait(_PATIENCE_S)
    except KeyboardInterrupt:
        pass
    finally:
        os._exit(0)


def _await_up(process: RunningProcess) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not process.log_tail().endswith("up"):
        if process.poll() is not None or time.monotonic() > deadline:
            os.write(2, f"the tree did not come up: {process.log_tail()}\n".encode())
            os._exit(1)
        time.sleep(0.002)


def _pidfd(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.pidfd_open(pid)
    return None


def _await_all(watched: list[int]) -> None:
    """Until every one of these processes is gone; gives up after a while, and the survivors are counted."""
    deadline = time.monotonic() + _PATIENCE_S
    for descriptor in watched:
        select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        os.close(descriptor)


def _bearers(mark: str) -> Iterator[int]:
    """Processes whose environment bears the mark; the dead have none."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if mark.encode() in Path("/proc", name, "environ").read_bytes():
                    yield int(name)


def _p99(values: list[float]) -> float:
    return sorted(values)[max(0, -(-99 * len(values) // 100) - 1)]


def table(found: dict[tuple[str, str], list[Death]]) -> str:
    """A line per tier and cause, and one for all, as markdown."""
    everything = [death for group in found.values() for death in group]
    lines = [
        f"{len(everything)} trees of {min(d.processes for d in everything)} to {max(d.processes for d in everything)} "
        f"processes, on {machine()}.\n",
        "| tier | cause | trees | median ms | p99 ms | most ms | survivors |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for (tier, cause), deaths in (*found.items(), (("A, C", "all"), everything)):
        times = [death.milliseconds for death in deaths]
        survivors = sum(death.survivors for death in deaths)
        lines.append(
            f"| {tier} | {cause} | {len(deaths)} | {median(times):.1f} | {_p99(times):.1f} | {max(times):.1f} | "
            f"{survivors} |"
        )
    verdict = "reached" if _p99([d.milliseconds for d in everything]) <= GOAL_MS else "missed"
    lines.append(f"\nGoal: a p99 of at most {GOAL_MS:g} ms, and no survivor: {verdict}.")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
