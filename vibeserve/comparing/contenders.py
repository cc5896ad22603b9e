"""Decides what a front is that takes part in a comparison: its members, where it came from, how it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from population.objectives import Objective
from population.statistics import Estimate
from vibeserve.lifecycle import RunState

FloatArray = npt.NDArray[np.float64]


class Kind(StrEnum):
    """In which role something is compared."""

    RUN = "run"
    BASELINE = "baseline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One server, with the samples of every objective that is compared."""

    id: str
    made_by: str
    samples: Mapping[str, tuple[float, ...]]
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What must be the same for two fronts to be comparable."""

    parts: Mapping[str, str]
    """What was measured and how → digest or text: parts of the target, the harness, the objectives."""
    hardware: frozenset[str]
    """Kinds of machine that measured; empty: not on record."""
    loads: Mapping[str, str] = field(default_factory=dict)
    """Load → its declaration as text."""
    target: Path | None = None
    """The snapshot of the target, to look up what differs."""
    partial: bool = False
    """A measurement outside a run: it knows its loads, client and machine, and no target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A front that is compared with others."""

    name: str
    kind: Kind
    place: Path
    """Run folder or file."""
    members: tuple[Member, ...]
    """Its front."""
    identity: Identity
    setting: Mapping[str, str] = field(default_factory=dict)
    """Config key → value; empty where there is no config."""
    rng_seed: int | None = None
    trace_seed: str | None = None
    """What fixed arrivals and lengths during the search."""
    state: RunState | None = None
    children: int = 0
    points: Mapping[str, Member] = field(default_factory=dict)
    """What else it measured to compare with: `seed`, and the target's baselines by name."""
    tiers: frozenset[str] = frozenset()
    """Isolation tiers of the front's measurements."""
    caveats: tuple[str, ...] = ()

    def costs(self, objectives: Sequence[Objective]) -> FloatArray:
        """Costs (N, M) of the members' central values."""
        rows = [[o.cost(m.estimates[o.name].value) for o in objectives] for m in self.members]
        return np.array(rows, dtype=np.float64).reshape(len(self.members), len(objectives))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which numbers of a run are compared."""

    objectives: tuple[str, ...] = ()
    """Names of objectives, or of other metrics that were measured (`p99_ttft_ms@low`); empty: the run's objectives."""
    held_out: bool = False
    """The measurements on the held-out trace at the end, in place of those of the search."""
