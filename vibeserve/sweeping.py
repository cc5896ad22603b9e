"""Decides how a sweep is carried out: one run after the other, failures noted and passed over, to be taken up again."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from evaluators.target import load_target
from population.errors import ConfigError, RunError, VibeServeError
from population.ledger import read_events
from vibeserve.config import Config
from vibeserve.display import Display
from vibeserve.layers import Sources, load_config
from vibeserve.lifecycle import RunState, run_state
from vibeserve.sweep import Planned, Status, Sweep
from vibeserve.sweep_folder import read_sweep, run_dir_of, write_sweep
from vibeserve.wiring import Parts, resume, run

_LOCK = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conducted:
    """How far a sweep came."""

    sweep: Sweep
    interrupted: bool

    @property
    def failed(self) -> tuple[Planned, ...]:
        """The runs that could not go on."""
        return tuple(planned for planned in self.sweep.runs if planned.status is Status.FAILED)


def check(sweep: Sweep) -> Config:
    """The config of its first run, once every setting and the target have been read.

    Raises:
        ConfigError: with every defect of every setting, or of the target.
    """
    problems: dict[str, None] = {}
    configs = []
    for planned in {tuple(planned.setting.items()): planned for planned in reversed(sweep.runs)}.values():
        try:
            configs.append(config_of(sweep, planned, Path()))
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise ConfigError(list(problems))
    if configs[-1].target is None:
        raise ConfigError("expected a target folder, got none: `vibeserve sweep examples/tiny-llama -s …`, or a preset")
    for folder in {config.target for config in configs if config.target is not None}:
        load_target(folder)
    return configs[-1]


def config_of(sweep: Sweep, planned: Planned, folder: Path) -> Config:
    """The effective config of one run, which will be below `folder`.

    Raises:
        ConfigError: with every defect.
    """
    flags: dict[str, tuple[object, str]] = {
        "runs_dir": (str(folder), "sweep"),
        "name": (planned.name, "sweep"),
        "seed": (planned.seed, "sweep"),
    }
    if sweep.target is not None:
        flags["target"] = (sweep.target, "TARGET")
    files = [Path(file) for file in sweep.files]
    return load_config(Sources(preset=sweep.preset, files=files, overrides=sweep.overrides(planned), flags=flags))


def conduct(
    folder: Path,
    open_display: Callable[[], Display],
    announce: Callable[[str], None],
    parts: Parts | None = None,
) -> Conducted:
    """Carry out what is left of the sweep in `folder`: pending runs, those cut off, and, once more, those that failed.

    A run that fails is noted and the next one begins. Ctrl-C drains the run in progress and ends the sweep there.

    Raises:
        RunError: another process is at it, or the folder holds no sweep.
        InfrastructureError: the sweep's file cannot be written.
    """
    with _alone(folder):
        sweep = read_sweep(folder)
        for place, planned in enumerate(sweep.runs, start=1):
            if planned.status is Status.FINISHED:
                continue
            announce(f"run {place} of {len(sweep.runs)}: {planned.name}")
            sweep = _note(folder, sweep, replace(planned, status=Status.STARTED, error=""))
            try:
                reason = _carry_out(folder, sweep, planned, open_display, parts)
            except VibeServeError as error:
                announce(f"{planned.name} failed: {error}")
                sweep = _note(folder, sweep, replace(planned, status=Status.FAILED, error=str(error)))
                continue
            if reason == "interrupted":
                return Conducted(sweep=sweep, interrupted=True)
            sweep = _note(folder, sweep, replace(planned, status=Status.FINISHED, error=""))
    return Conducted(sweep=sweep, interrupted=False)


def _carry_out(
    folder: Path, sweep: Sweep, planned: Planned, open_display: Callable[[], Display], parts: Parts | None
) -> str:
    """Start, resume, or find finished; why it stopped."""
    run_dir = run_dir_of(folder, planned)
    if run_dir is None:
        return run(config_of(sweep, planned, folder), open_display(), parts).stopped_because
    if run_state(list(read_events(run_dir / "ledger"))) is RunState.FINISHED:
        return "finished before"
    return resume(run_dir, (), open_display(), parts).stopped_because


def _note(folder: Path, sweep: Sweep, changed: Planned) -> Sweep:
    sweep = sweep.with_run(changed)
    write_sweep(folder, sweep)
    return sweep


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The kernel takes the lock back when this process ends, however it does.

    Raises:
        RunError: another process holds it.
    """
    with (folder / _LOCK).open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{folder}: another process carries out this sweep; wait for it, or stop it") from error
        yield
