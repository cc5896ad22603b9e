"""Decides what is said about many runs at once: what was computed from a ledger that has not changed is kept.

Kept in an index on this machine (`population.index`), which says nothing that the ledger would not say again. Whether a
driver is alive is looked up anew each time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from population.errors import InfrastructureError
from population.events import Event
from population.index import Index
from population.replay import State
from vibeserve import __version__
from vibeserve.lifecycle import run_state
from vibeserve.summary import summarise, summary_of, to_json

_SUMMARY = "summary"


def index_cache() -> Path:
    """`$XDG_CACHE_HOME/vibeserve/index`, `~/.cache/vibeserve/index` without it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vibeserve" / "index"


def open_index(run_dir: Path, rebuild: bool = False) -> Index:
    """The index of a run as it is now.

    Raises:
        LedgerError: the ledger is damaged before its tail.
        InfrastructureError: the ledger cannot be read, or the index not written.
    """

    def describe(events: Sequence[Event], state: State) -> Mapping[str, str]:
        return {_SUMMARY: json.dumps(to_json(summary_of(run_dir, state, run_state(events))))}

    return Index.open(run_dir / "ledger", index_cache(), describe, __version__, rebuild)


def brief(run_dir: Path, rebuild: bool = False) -> dict[str, Any]:
    """A run's summary as `to_json` gives it.

    Raises:
        LedgerError: the ledger is damaged before its tail.
        InfrastructureError: the ledger cannot be read.
    """
    try:
        with open_index(run_dir, rebuild) as index:
            found: dict[str, Any] = index.document(_SUMMARY)
            life = run_state(list(index.events("epoch_started", "stopped")))
    except InfrastructureError:
        return to_json(summarise(run_dir))  # no room for an index: the ledger will do
    return {**found, "run_dir": str(run_dir), "state": str(life)}
