"""Decides how a sweep lies on disk, and which folder the user means.

A folder below the runs folder with `sweep.json` and the runs inside. The file is written before the first run and after
every change, by one process; a run whose end it missed (a kill) is found by its folder's name.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from population.errors import InfrastructureError, RunError
from vibeserve.runs import SWEEP_FILE, default_runs_dir, is_run, list_runs, list_sweeps
from vibeserve.sweep import Planned, Status, Sweep

_FORMAT = 1


def create_folder(runs_dir: Path, name: str) -> Path:
    """A new folder `<timestamp>-sweep-<name>`.

    Raises:
        InfrastructureError: it cannot be made.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = runs_dir / f"{stamp}-sweep-{name}{suffix}"
        try:
            runs_dir.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise InfrastructureError(f"{folder}: cannot be made: {error.strerror}") from error
        return folder
    raise RunError(f"{runs_dir}: too many sweeps began in this second")


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Replace the file as a whole: a reader, or a kill, never meets half of it.

    Raises:
        InfrastructureError: it cannot be written.
    """
    text = json.dumps({"format": _FORMAT, **asdict(sweep)}, indent=1) + "\n"
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".sweep-", delete=False, encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(folder / SWEEP_FILE)
    except OSError as error:
        raise InfrastructureError(f"{folder / SWEEP_FILE}: cannot be written: {error.strerror}") from error


def read_sweep(folder: Path) -> Sweep:
    """The sweep in a folder.

    Raises:
        RunError: its file is missing or not one that this version wrote.
    """
    path = folder / SWEEP_FILE
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["format"] != _FORMAT:
            raise ValueError(f"expected format {_FORMAT}, got {table['format']}")
        return Sweep(
            target=table["target"],
            preset=table["preset"],
            files=tuple(table["files"]),
            constants=tuple(table["constants"]),
            varied={key: tuple(values) for key, values in table["varied"].items()},
            runs=tuple(_planned(run) for run in table["runs"]),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: expected the file of a sweep: {error}") from error


def _planned(table: Mapping[str, Any]) -> Planned:
    return Planned(
        name=table["name"],
        setting=dict(table["setting"]),
        seed=table["seed"],
        status=Status(table["status"]),
        error=table["error"],
    )


def find_sweep(text: str, runs_dir: Path | None = None) -> Path | None:
    """The folder of a sweep for its path, its name or a unique part of it; None if it is none, or fits several.

    A text that is a run's name, or part of one, means that run, whatever else it fits.
    """
    runs_dir = runs_dir or default_runs_dir()
    for folder in (Path(text), runs_dir / text):
        if (folder / SWEEP_FILE).is_file():
            return folder
        if is_run(folder):
            return None
    if any(text in run.name for run in list_runs(runs_dir)):
        return None
    matches = [folder for folder in list_sweeps(runs_dir) if text in folder.name]
    return matches[0] if len(matches) == 1 else None


def run_dirs_of(folder: Path, sweep: Sweep) -> list[Path]:
    """Folders of the runs that have begun, in the order of the grid."""
    found = (run_dir_of(folder, planned) for planned in sweep.runs)
    return [run_dir for run_dir in found if run_dir is not None]


def run_dir_of(folder: Path, planned: Planned) -> Path | None:
    """Where a planned run is; None before it has begun. The newest, should it have begun several times."""
    found = sorted(child for child in folder.glob(f"*-{planned.name}") if _is_named(child, planned) and is_run(child))
    return found[-1] if found else None


def _is_named(folder: Path, planned: Planned) -> bool:
    """Whether the folder is `<date>-<time>-<name>`: another run's name may end like this one's."""
    return re.fullmatch(r"\d{8}-\d{6}-" + re.escape(planned.name), folder.name) is not None
