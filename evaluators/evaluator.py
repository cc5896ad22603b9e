"""The seam between a child and its measurement: what an evaluator is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from population.evaluation import Evaluation, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The part of one machine that an evaluation may use, exclusively, until it returns."""

    cpus: tuple[int, ...]
    """Logical CPUs; with two or more, the client is pinned to the last and the server to the others."""
    gpus: tuple[str, ...] = ()
    """Device indices or UUIDs for CUDA_VISIBLE_DEVICES."""
    scratch: Path
    """Private writable folder, removed by whoever granted the lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationTask:
    """One evaluation of one working tree. Frozen and picklable."""

    candidate: str
    workspace: Path
    """The candidate's files, without a git folder."""
    target: Path
    """The run's snapshot of the target."""
    trace_seed: int
    """Fixes arrival times, lengths and sharing: one value for a run, another for its held-out trace."""
    content_seed: int
    """Draws the prompts' contents: fresh for every evaluation, never shown to the candidate."""
    bar: tuple[tuple[float, ...], ...] = ()
    """Pessimistic costs (log, minimised) of the front: once the optimistic costs of this candidate are dominated by one
    of them, further repeats are skipped (racing). Empty: never skip."""
    repeats: int | None = None
    """Overrides the target's `[benchmark] repeats`."""
    judged: bool = True
    """False for a re-measurement: the tree has passed the checker before; boot, benchmark and audit still run."""
    profile: bool = False
    first_party: bool = False
    """The tree is made of the checkout's own seed, recipes, knobs and merges, so it may run without isolation."""
    until: Stage | None = None
    """CHECKER or BENCHMARK: the last stage, for who only wants to know how far a tree is: nothing is audited or
    profiled, and `Scored` has the samples of one repeat, or none. Such an evaluation proves nothing and is never
    recorded. None: all stages."""
    output: Path | None = None
    """Folder for server log, checker and benchmark output (children/<id>/); None keeps nothing."""


class Evaluator(Protocol):
    """Working tree + lease → evaluation."""

    def evaluate(self, task: EvaluationTask, lease: Lease, progress: Callable[[Stage], None]) -> Evaluation:
        """Judge and measure; leaves no process behind, whatever the candidate did.

        Returns a value for everything that is the candidate's fault.

        Raises:
            InfrastructureError: the machine's fault (port range exhausted, disk full, reference missing); retryable.
        """
        ...
