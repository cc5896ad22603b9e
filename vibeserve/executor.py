"""The seam between the driver and the machines: frozen tasks in, frozen completions out, in order of completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from population.candidate import Proposal
from population.evaluation import Evaluation, Place, Rejected, Stage
from population.spending import Spending


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """The git objects of one commit that its parents do not have; equal commits have equal deltas."""

    commit: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A child's own tree, rejected, that goes back to who made it."""

    commit: str
    words: str
    """The verdict with its evidence, and what is to be done."""
    transcript: str
    """Of the conversation so far; empty: it was not kept."""
    attempt: int
    """1 for the first time that it goes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A child's own tree that nobody needs to make again: only its judge has still to read it."""

    commit: str
    summary: str
    changed: tuple[str, ...]
    """Paths."""
    attempt: int
    """How often the child had been sent back when it was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MutateTask:
    """The first half of a child: make its commit. Its key is the child's id."""

    proposal: Proposal
    parents: tuple[str, ...]
    """Commits, in the order of the proposal's parents."""
    chain: tuple[Delta, ...] = ()
    """What leads from the seed, which every worker has, to the parents: every ancestor before its descendants.
    Executors may leave out what a worker has."""
    brief: str = ""
    """All that a model is told, but for what the performance evaluator concludes."""
    advice: str = ""
    """What it concluded from the first parent's profile."""
    profile: str = ""
    """What it is to conclude that from, as its task; empty: it is not asked."""
    returned: Returned | None = None
    """The child's own tree, which is to be mended; None: it begins at the parents'."""
    draft: Draft | None = None
    """What is only to be read; None: it has still to be made."""

    @property
    def key(self) -> str:
        return self.proposal.id


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureTask:
    """Judge and measure a commit: the second half of a child, a re-measurement, or one side of a claim."""

    key: str
    """Unique among tasks in flight: `c000123`, `r000007` (re-measurement), `f-c000012-0` (final, held-out)."""
    trace_seed: int
    content_seed: int
    commit: str
    chain: tuple[Delta, ...] = ()
    """What leads from the seed to the commit, the commit's own delta last; as in `MutateTask`."""
    bar: tuple[tuple[float, ...], ...] = ()
    repeats: int | None = None
    judged: bool = True
    profile: bool = False


Task = MutateTask | MeasureTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutated:
    """The commit that a mutation made, with its delta on top of the parents."""

    delta: bytes
    commit: str
    tree: str
    summary: str
    elapsed_s: float
    changed: tuple[str, ...] = ()
    """Paths, for whoever has still to read it."""
    files: tuple[tuple[str, str], ...] = ()
    """Artifacts for children/<id>/ (brief, transcript), name and text."""
    spent: tuple[Spending, ...] = ()
    """What models were asked for it."""
    advice: str = ""
    """What the performance evaluator has concluded about the first parent, if it was asked."""
    objection: Rejected | None = None
    """What the judge has against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A mutation that made no commit, although it took its time, files and tokens."""

    rejected: Rejected
    elapsed_s: float
    files: tuple[tuple[str, str], ...] = ()
    spent: tuple[Spending, ...] = ()
    advice: str = ""
    """As of `Mutated`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The evaluation and what it cost."""

    evaluation: Evaluation
    elapsed_s: float
    place: Place | None = None
    """None: the executor does not say."""
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The machine failed, not the candidate."""

    reason: str
    retryable: bool = True
    final: bool = False
    """It would befall every other child, too, and no waiting helps: the run has to stop. Not retryable."""
    wait_s: float | None = None
    """Seconds to wait at least before it is tried again; None: it does not say."""
    spent: tuple[Spending, ...] = ()
    """What models were asked in vain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A mutation that made its commit, which the judge could not read: the machine or its provider failed then."""

    mutated: Mutated
    fault: Fault
    """With the judge's part of the bill alone."""


Made = Mutated | Unread | Failed | Rejected
"""What a mutation can end in, but for faults under which nothing was made."""
Outcome = Made | Evaluated | Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A task has ended: a `MutateTask` in one of `Made`, a `MeasureTask` in `Evaluated`, both in `Fault`."""

    key: str
    outcome: Outcome


class Executor(Protocol):
    """Runs tasks on machines. Each task that is submitted and not cancelled completes exactly once.

    Tasks of one kind begin in order of submission, or nearly so where several machines take them. A measurement that
    finds no slot free waits, without the driver's doing, and takes the next one: submit a few more than there are
    slots, and no slot waits for the driver.
    """

    @property
    def evaluate_slots(self) -> int:
        """Evaluations that can run at once."""
        ...

    @property
    def overlaps(self) -> bool:
        """Whether mutations run beside evaluations. If not, one task runs at a time and nothing is gained by a lead."""
        ...

    @property
    def clock_s(self) -> float:
        """The time by which its tasks run, s; monotonic, from an arbitrary moment on."""
        ...

    def submit(self, task: Task) -> None:
        """Start a task, or line it up; returns at once."""
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
