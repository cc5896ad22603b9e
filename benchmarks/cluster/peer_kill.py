"""Kills OpenEvolve's main process once at a random point and counts what is left of its work.

Its runner, its stub of an LLM and the workload are the peers' own (`--peer-bench`); nothing of them is kept here.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.cluster.faults.ground import born

PROGRAMS = 80
GONE_WITHIN_S = 20.0
_WORKERS, _DEADLINE_S = 8, 240.0


@dataclass
class PeerReport:
    """One SIGKILL of OpenEvolve's main process, and what was left of its work."""

    finished: int = 0
    saved: int = 0
    """Programs in its newest checkpoint."""
    workers: int = 0
    orphans: int = 0
    """Of its worker processes, those that still lived `GONE_WITHIN_S` after it."""


def kill_openevolve(python: Path, bench: Path, folder: Path, seed: int) -> PeerReport:
    """OpenEvolve on the peers' workload with eight workers, killed at a random point between a third and the end."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "PB_LOG": str(folder), "PYTHONPATH": str(bench), "no_proxy": "127.0.0.1"}
    out = folder / "out"
    command = [str(python), str(bench / "openevolve" / "run_oe.py"), str(out), port, str(_WORKERS)]
    wanted = random.Random(seed).randrange(PROGRAMS // 3, PROGRAMS - _WORKERS)
    with (
        (folder / "log").open("w") as log,
        _running([sys.executable, str(bench / "stub_llm.py"), port], environment, log),
        _running([*command, str(PROGRAMS), "100"], environment, log) as main,
    ):
        deadline = time.monotonic() + _DEADLINE_S
        while len(_lines(folder / "eval.jsonl")) < wanted:
            assert main.poll() is None, f"OpenEvolve ended by itself: see {folder / 'log'}"
            assert time.monotonic() < deadline, "OpenEvolve was too slow"
            time.sleep(0.02)
        workers = [(pid, born(pid)) for pid in _descendants(main.pid)]
        main.kill()
        main.wait()
        report = PeerReport(finished=len({e["k"] for e in _lines(folder / "eval.jsonl")}), workers=len(workers))
        report.saved = max((len(list(c.glob("programs/*.json"))) for c in out.glob("oe/checkpoints/*")), default=0)
        time.sleep(GONE_WITHIN_S)
        left = [pid for pid, since in workers if born(pid) == since]
        report.orphans = len(left)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    return report


@contextmanager
def _running(words: list[str], environment: dict[str, str], log: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def _descendants(root: int) -> list[int]:
    """Process ids below `root`, by what /proc says of parents."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found, fresh = set[int](), {root}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh}
        found |= fresh
    return sorted(found)
