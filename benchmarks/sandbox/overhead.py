"""Measures what isolation adds to the start of a command: tier A against tier C, in pairs, one after the other.

`python -m benchmarks.sandbox.overhead [--pairs 200] [--output benchmarks/sandbox/results.md]`

The command is `/bin/true`; a time runs from the call of `launch` until its exit code is known. The pod is there
already, as in an evaluation, where it starts beside the static check; how long it takes by itself is told as well.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from benchmarks.chaos.kills import replace_section
from benchmarks.sandbox.facts import machine
from evaluators.bubblewrap import BubblewrapSandbox
from evaluators.launch import Launch
from evaluators.pod import Pod
from evaluators.sandbox import PlainSandbox, Sandbox, clean_environment

MARK = "<!-- overhead -->"
GOAL_MS = 15.0
_WARM_UP = 5


def main() -> int:
    """One table, and exit code 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    pods_ms = [_pod_ms() for _ in range(20)]
    pairs = _pairs(given.pairs)
    text = table(pairs, pods_ms)
    print(text)
    if given.output is not None:
        replace_section(given.output, MARK, text)
    return 0 if median(a - c for a, c in pairs) <= GOAL_MS else 1


def _pairs(count: int) -> list[tuple[float, float]]:
    """(tier A, tier C) in milliseconds; who comes first alternates."""
    isolated, plain = BubblewrapSandbox(), PlainSandbox()
    found = []
    with tempfile.TemporaryDirectory(prefix="vibeserve-") as name, isolated.pod() as pod:
        folder = Path(name)
        (folder / "workspace").mkdir()
        for number in range(_WARM_UP + count):
            order: list[tuple[Sandbox, Pod | None]] = [(isolated, pod), (plain, None)]
            times = [_start_ms(*each, folder) for each in (order if number % 2 else reversed(order))]
            found.append((times[0], times[1]) if number % 2 else (times[1], times[0]))
    return found[_WARM_UP:]


def _start_ms(sandbox: Sandbox, pod: Pod | None, folder: Path) -> float:
    launch = Launch(
        command=("/bin/true",), workspace=folder / "workspace", log=folder / "log",
        env=clean_environment(folder / "home"), pod=None if pod is None else pod.holder_pid,
    )  # fmt: skip
    began = time.perf_counter()
    with sandbox.launch(launch) as process:
        code = process.wait(20.0)
        taken_ms = (time.perf_counter() - began) * 1e3
    if code != 0:
        raise SystemExit(f"expected exit code 0, got {code}: {process.log_tail()}")
    return taken_ms


def _pod_ms() -> float:
    began = time.perf_counter()
    with Pod() as pod:
        _ = pod.holder_pid
        return (time.perf_counter() - began) * 1e3


def table(pairs: list[tuple[float, float]], pods_ms: list[float]) -> str:
    """Medians and spread, as markdown."""
    differences = [a - c for a, c in pairs]
    rows = (("tier A", [a for a, _ in pairs]), ("tier C", [c for _, c in pairs]), ("A - C", differences))
    lines = [
        f"{len(pairs)} pairs on {machine()}.\n",
        "| | median ms | p5 | p25 | p75 | p95 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, values in rows:
        cut = quantiles(values, n=20)
        figures = (median(values), cut[0], cut[4], cut[14], cut[18])
        lines.append(f"| {name} | {' | '.join(f'{value:.1f}' for value in figures)} |")
    verdict = "reached" if median(differences) <= GOAL_MS else "missed"
    lines.append(f"\nGoal: a median difference of at most {GOAL_MS:g} ms: {verdict}. ")
    lines.append(f"A pod by itself: {median(pods_ms):.1f} ms (median of {len(pods_ms)}), beside the static check.")
    return "\n".join(lines)


if __name__ == "__main__":
    os.umask(0o022)
    raise SystemExit(main())
