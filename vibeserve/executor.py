"""The seam between the driver and the machines: frozen tasks in, frozen completions out, in order of completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from population.candidate import Proposal
from population.evaluation import Evaluation, Place, Rejected, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a mutation starts from: commits as a git bundle, so that a task needs no shared disk."""

    bundle: bytes
    parents: tuple[str, ...]
    """Commit ids contained in the bundle, in the order of the proposal's parents."""
    brief: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildTask:
    """One child: mutate, then judge and benchmark. `material` is None for a tree that exists already (resume)."""

    proposal: Proposal
    material: Material | None
    measure: MeasureTask


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureTask:
    """The evaluation half of a child, or a re-measurement by itself. `bundle`/`commit` are None until mutated."""

    key: str
    """Unique among tasks in flight: `c000123`, `r000007` (re-measurement), `f-c000012-0` (final, held-out)."""
    trace_seed: int
    content_seed: int
    bar: tuple[tuple[float, ...], ...] = ()
    repeats: int | None = None
    judged: bool = True
    profile: bool = False
    bundle: bytes | None = None
    commit: str | None = None
    seen_trees: frozenset[str] = frozenset()
    """Trees that are known already; a mutation that arrives at one of them is not evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutated:
    """The commit that a mutation made, as a bundle on top of the parents."""

    bundle: bytes
    commit: str
    tree: str
    summary: str
    elapsed_s: float
    files: tuple[tuple[str, str], ...] = ()
    """Artifacts for children/<id>/ (brief, transcript), name and text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The evaluation and what it cost."""

    evaluation: Evaluation
    elapsed_s: float
    place: Place | None = None
    """None: the executor does not say."""
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One half of a task has ended. A `Rejected` in place of `Mutated` ends the child; a `Fault` may be retried."""

    key: str
    outcome: Mutated | Evaluated | Rejected | Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The machine failed, not the candidate."""

    reason: str
    retryable: bool = True


class Executor(Protocol):
    """Runs tasks on machines. Completions come in order of completion; per key `Mutated` precedes `Evaluated`."""

    @property
    def evaluate_slots(self) -> int:
        """Evaluations that can run at once."""
        ...

    def submit(self, task: ChildTask | MeasureTask) -> None:
        """Start a task; returns at once."""
        ...

    def wait(self, timeout_s: float) -> Sequence[Completion]:
        """Everything that has completed, waiting at most `timeout_s` for the first."""
        ...

    def cancel(self, key: str) -> None:
        """Stop a task and its processes; no completion follows. Unknown keys are ignored."""
        ...

    def stages(self) -> dict[str, tuple[Stage, float]]:
        """Per key in flight its stage and the seconds since it began; for display only."""
        ...

    def close(self) -> None:
        """Cancel everything and release the machines; idempotent."""
        ...
