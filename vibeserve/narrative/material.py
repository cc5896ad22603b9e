"""Decides what a report is made from: a run's ledger, and its options and target as far as they can be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from population.errors import VibeServeError
from population.replay import State
from vibeserve.lifecycle import run_state
from vibeserve.runs import read_run
from vibeserve.summary import Summary, summary_of

if TYPE_CHECKING:
    from evaluators.target import Target
    from vibeserve.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A run, read once."""

    run_dir: Path
    state: State
    summary: Summary
    config: Config | None
    """None where run.toml was written by another version."""
    target: Target | None
    """The run's snapshot; None where it is gone or malformed."""


def gather(run_dir: Path) -> Material:
    """Everything that the report needs.

    Raises:
        LedgerError: the ledger is damaged before its tail.
    """
    events, state = read_run(run_dir)
    return Material(
        run_dir=run_dir,
        state=state,
        summary=summary_of(run_dir, state, run_state(events)),
        config=_config(run_dir),
        target=_target(run_dir),
    )


def _config(run_dir: Path) -> Config | None:
    from vibeserve.layers import load_run_config

    try:
        return load_run_config(run_dir)
    except VibeServeError:
        return None


def _target(run_dir: Path) -> Target | None:
    from evaluators.target import load_target

    try:
        return load_target(run_dir / "target")
    except VibeServeError:
        return None
