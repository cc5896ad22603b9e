"""Decides nothing: holds together where a run's truth lives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from population.ledger import Ledger
from population.replay import State
from population.repository import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """The ledger, its replay, the commits and the children's files."""

    ledger: Ledger
    state: State
    repository: Repository
    children: Path
    stop_marker: Path
    """A file that asks the driver to drain, for those who cannot send it a signal."""
