"""Decides what a driver obeys: seeds, budgets and switches, made once from the config and the target."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from population.genome import Genome
from vibeserve.agents.prices import Price
from vibeserve.flow import FlowRules
from vibeserve.prompts.facts import Ground


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A commit that exists before the search: the seed, or a baseline."""

    commit: str
    tree: str
    genome: Genome


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the driver obeys. None is unlimited."""

    seed: int
    """The run's seed; a child's rng is `default_rng([seed, number])`."""
    secret: bytes
    """Draws the contents of prompts; no candidate sees it, and it is disclosed when the run ends."""
    root: Root
    baselines: Mapping[str, Root] = field(default_factory=dict)
    """The target's other baselines by name, measured together with the final front."""
    children: int | None = None
    wall_time_s: float | None = None
    gpu_hours: float | None = None
    tokens: int | None = None
    dollars: float | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)
    """What models cost; one that is not in it is unknown."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Models that take turns in writing children → their shares; empty: there is one, or none."""
    gpus_per_evaluation: int = 0
    flow: FlowRules = field(default_factory=FlowRules)
    """How much is kept in flight, and for how long."""
    patience_s: float = 3600.0
    """For so long mutations that fail through no fault of theirs are tried again, while none of them works."""
    racing: bool = True
    remeasure: bool = True
    repeats: int | None = None
    """Benchmark repeats per evaluation; None: as the target says."""
    final_repeats: int = 1
    pinned_trace_seed: int | None = None
    """Seed of the search's trace, so that runs can be compared with each other; None: drawn from `seed`."""
    profile: bool = False
    ground: Ground | None = None
    """What every maker of a child is told; None: nobody reads briefs."""
    repairs: int = 0
    """How often a rejected child goes back to who made it."""
    advised: bool = False
    """Whether a model reads the profile of a parent before another one changes it."""

    def trace_seed(self, trace: str) -> int:
        """Seed of arrival times, lengths and sharing of a trace, `search` or `held-out`."""
        if self.pinned_trace_seed is not None and trace == "search":
            return self.pinned_trace_seed
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{trace}".encode()).digest()[:6])

    def content_seed(self, key: str) -> int:
        """Seed of the prompts' contents of one evaluation."""
        return int.from_bytes(hmac.digest(self.secret, key.encode(), "sha256")[:6])
