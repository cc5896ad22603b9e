"""Decides what a run may ask of its place in a cluster, besides the resources of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluators.hardware import fingerprint
from vibeserve.same_hardware import Fingerprint, MixedHardware


def _silent(line: str) -> None:
    del line


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How many evaluations, on which hardware, and who else is there."""

    limit: int | None = None
    """Evaluations at once; None: as many as fit."""
    alone: bool = False
    """One evaluation at a time, all on one node: what is compared is measured on one machine."""
    nodes_timeout_s: float = 0.0
    """How long to wait for the first node that fits; 0: the cluster as it is."""
    mixed: MixedHardware = "refuse"
    before: Fingerprint | None = None
    """What the run was measured on so far."""
    driver: str | None = None
    """Unique among the drivers that share the cluster; None: nobody shares it."""
    priority: int = 0
    identify: Callable[[Sequence[str] | None], Fingerprint] = fingerprint
    """What a node says of its hardware, given GPUs or None for all of them; runs there."""
    say: Callable[[str], None] = _silent
    """Told what a user should know, once."""
