"""Decides what a run has used up: GPUs by its target, dollars by the price that the viewer names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.target import load_target
from population.errors import VibeServeError
from vibeserve.follower import Followed


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What things cost the viewer. `gpu_hour` in dollars; None: not known, which is never 0."""

    gpu_hour: float | None = None

    def dollars(self, gpu_hours: Sequence[float]) -> list[float] | None:
        """Dollars for these GPU-hours."""
        return None if self.gpu_hour is None else [hours * self.gpu_hour for hours in gpu_hours]


def gpus_per_evaluation(run: Followed) -> int | None:
    """GPUs that one evaluation leases; None if the run's copy of its target cannot be read."""
    return run.facts("gpus", lambda: _gpus(run))


def _gpus(run: Followed) -> int | None:
    try:
        return load_target(run.run_dir / "target").resources.num_gpus
    except VibeServeError:
        return None
