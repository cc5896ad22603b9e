"""Decides which run folder and which candidate the user means."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from population.errors import RunError, UsageError

if TYPE_CHECKING:
    from population.events import Event
    from population.replay import State

STOP_MARKER = "stop-requested"
"""File in a run folder that asks a driver on another host to drain; the driver removes it."""
SWEEP_FILE = "sweep.json"
"""File of a folder that holds the runs of a sweep (`vibeserve.sweep_folder`)."""
_CANDIDATE = re.compile(r"(?:c0*)?(\d{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One candidate of one run."""

    run_dir: Path
    candidate: str


def default_runs_dir() -> Path:
    """`runs`, or what VIBESERVE_RUNS_DIR says."""
    from vibeserve.config import Config, environment_layer

    value, _ = environment_layer().get("runs_dir", (Config().runs_dir, ""))
    return Path(str(value))


def is_run(folder: Path) -> bool:
    """Whether `folder` looks like a run."""
    return (folder / "ledger").is_dir()


def list_runs(runs_dir: Path | None = None) -> list[Path]:
    """Every run folder, those of sweeps among them, oldest first: names begin with a timestamp."""
    runs_dir = runs_dir or default_runs_dir()
    if not runs_dir.is_dir():
        return []
    folders = [runs_dir, *list_sweeps(runs_dir)]
    return sorted((f for folder in folders for f in folder.iterdir() if is_run(f)), key=lambda f: f.name)


def list_sweeps(runs_dir: Path) -> list[Path]:
    """Every folder that a sweep's runs are in, oldest first."""
    if not runs_dir.is_dir():
        return []
    return sorted(f for f in runs_dir.iterdir() if (f / SWEEP_FILE).is_file())


def find_run(text: str | None, runs_dir: Path | None = None) -> Path:
    """The run folder for a path, a name, a unique part of a name, or nothing (the latest).

    Raises:
        UsageError: no such run, or several.
    """
    runs_dir = runs_dir or default_runs_dir()
    runs = list_runs(runs_dir)
    if text is None:
        if not runs:
            raise UsageError(
                f"no runs in {runs_dir}/; start one with `vibeserve run --preset quickstart`, or name the folder "
                "with --runs-dir"
            )
        return runs[-1]
    for folder in (Path(text), runs_dir / text):
        if folder.is_dir():
            if is_run(folder):
                return folder
            raise UsageError(f"{folder}: expected a run folder with a ledger/ inside, found none")
    matches = [run for run in runs if text in run.name]
    if len(matches) == 1:
        return matches[0]
    raise UsageError(_no_run(text, runs_dir, matches or runs, several=bool(matches)))


def _no_run(text: str, runs_dir: Path, runs: list[Path], several: bool) -> str:
    names = [run.name for run in runs]
    if several:
        return f"'{text}' fits {len(names)} runs in {runs_dir}/: {', '.join(names)}; give more of the name"
    close = difflib.get_close_matches(text, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else f"; `vibeserve ls --runs-dir {runs_dir}` lists them"
    return f"no run '{text}' in {runs_dir}/{hint}"


def find_candidate(text: str, run: str | None = None, runs_dir: Path | None = None) -> Reference:
    """The candidate for `c000012`, `12`, `seed` or `RUN:c000012`; whether it exists is for the ledger to say.

    Raises:
        UsageError: not a candidate, or no such run.
    """
    head, colon, name = text.rpartition(":")
    if colon and run is not None and head != run:
        raise UsageError(f"{text} names the run '{head}' and --run names '{run}'; give one of them")
    return Reference(run_dir=find_run(head or run, runs_dir), candidate=candidate_name(name))


def candidate_name(text: str) -> str:
    """`c000012` for `c000012`, `c12`, `12`; `c000000` for `seed`.

    Raises:
        UsageError: anything else.
    """
    match = _CANDIDATE.fullmatch("0" if text == "seed" else text.strip())
    if match is None:
        raise UsageError(f"expected a candidate such as c000012, 12 or seed, got '{text}'")
    return f"c{int(match[1]):06d}"


def read_run(run_dir: Path) -> tuple[list[Event], State]:
    """A run's events and what they amount to.

    Raises:
        LedgerError: the ledger is damaged before its tail.
    """
    from population.ledger import read_events
    from population.replay import State

    events = list(read_events(run_dir / "ledger"))
    return events, State.replay(events)


def candidate_files(run_dir: Path, candidate: str) -> list[Path]:
    """What is kept of a child beside its commit: brief, transcript, server log, checker and benchmark output."""
    folder = run_dir / "children" / candidate
    return sorted(f for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else []


def require_target(run_dir: Path) -> Path:
    """The run's snapshot of its target.

    Raises:
        RunError: it is missing.
    """
    target = run_dir / "target"
    if not target.is_dir():
        raise RunError(f"{run_dir}: expected the snapshot of the target in {target}, found none")
    return target
