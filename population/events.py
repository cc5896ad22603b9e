"""Decides what can happen in a run: the ledger's event types.

Every event is frozen. What the ledger stamps (`time_s`, `active_s`) decides nothing but the wall-clock budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from population.candidate import Proposal
from population.evaluation import Place, Rejected, Scored
from population.genome import Genome
from population.objectives import Objective
from population.spending import Spending


class Discriminated:
    """Spells pydantic's `Field(discriminator="kind")` without importing pydantic where nothing is (de)serialised."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import Discriminator

        return Discriminator("kind").__get_pydantic_core_schema__(source, handler)


AnyEvaluation = Annotated[Scored | Rejected, Discriminated()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamped:
    """What the ledger's writer adds to every event."""

    time_s: float = 0.0
    """Unix time of the append; for display only."""
    active_s: float = 0.0
    """Seconds since this driver epoch opened the ledger, by a clock that never jumps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Stamped):
    """The first event: what the run is about. A resume compares `fingerprint` with the present."""

    run: str
    seed: int
    objectives: tuple[Objective, ...]
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    """What was measured and how → hash or text: target, objectives, checker, benchmark, code, hardware."""
    first_party: bool = False
    """Whether target and skills were the checkout's own, so that servers made of them may run without isolation."""
    kind: Literal["run_started"] = "run_started"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochStarted(Stamped):
    """A driver opened the ledger, for the first time or on a resume; written by the ledger itself."""

    epoch: int
    host: str = ""
    pid: int = 0
    kind: Literal["epoch_started"] = "epoch_started"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed(Stamped):
    """A child exists from here on; it ends by exactly one `Ended`."""

    proposal: Proposal
    kind: Literal["proposed"] = "proposed"


@dataclass(frozen=True, slots=True, kw_only=True)
class MutationDone(Stamped):
    """The child became a commit of the population repository (which holds it before this is written)."""

    number: int
    commit: str
    tree: str
    genome: Genome
    summary: str = ""
    elapsed_s: float = 0.0
    spent: tuple[Spending, ...] = ()
    """What models were asked for it; here and below empty in records older than the field."""
    objection: Rejected | None = None
    """What a judge has against it: the child is not evaluated, and goes back or ends with this."""
    kind: Literal["mutation_done"] = "mutation_done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted(Stamped):
    """The child became a commit that a judge has still to read, because its provider failed: nobody makes it again."""

    number: int
    commit: str
    tree: str
    summary: str = ""
    changed: tuple[str, ...] = ()
    """Paths, for the judge."""
    elapsed_s: float = 0.0
    """Wall seconds of the mutation; counted with the `MutationDone` that follows, which has them, too."""
    spent: tuple[Spending, ...] = ()
    """What models were asked for it; `MutationDone.spent` has only what came later."""
    kind: Literal["drafted"] = "drafted"


@dataclass(frozen=True, slots=True, kw_only=True)
class SentBack(Stamped):
    """The child was rejected and goes back to who made it: it does not count yet, and becomes another commit or ends.

    `elapsed_s` is the evaluation's alone.
    """

    number: int
    evaluation: Rejected
    elapsed_s: float = 0.0
    place: Place | None = None
    kind: Literal["sent_back"] = "sent_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advised(Stamped):
    """A model has read the candidate's profile: hints for whoever changes it."""

    candidate: str
    advice: str
    kind: Literal["advised"] = "advised"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Stamped):
    """The child's evaluation; `elapsed_s` is the evaluation's alone.

    `place` is None where nothing was evaluated, and here and below in records older than the field.
    """

    number: int
    evaluation: AnyEvaluation
    elapsed_s: float = 0.0
    place: Place | None = None
    spent: tuple[Spending, ...] = ()
    """What models were asked since the last record of this child: for a mutation that failed, or a judgement."""
    kind: Literal["ended"] = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemeasureStarted(Stamped):
    """Re-measurement `index` (0, 1, …) of a scored candidate began; it ends by exactly one `Remeasured`."""

    index: int
    candidate: str
    kind: Literal["remeasure_started"] = "remeasure_started"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remeasured(Stamped):
    """`evaluation` is None when the machine failed too often: the re-measurement is over and says nothing."""

    index: int
    candidate: str
    evaluation: AnyEvaluation | None
    elapsed_s: float = 0.0
    place: Place | None = None
    kind: Literal["remeasured"] = "remeasured"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalMeasured(Stamped):
    """A last measurement of a front member, or of a baseline by name; reported beside the search's, never pooled."""

    subject: str
    evaluation: AnyEvaluation
    round: int = 0
    trace: str = "held-out"
    elapsed_s: float = 0.0
    place: Place | None = None
    kind: Literal["final_measured"] = "final_measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Faulted(Stamped):
    """The machine failed under task `key` for the `attempt`-th time (1, 2, …); never charged to a candidate."""

    key: str
    reason: str
    attempt: int
    spent: tuple[Spending, ...] = ()
    """What models were asked in vain."""
    kind: Literal["faulted"] = "faulted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Stamped):
    """The driver ended in an orderly way; a killed driver leaves none."""

    reason: str
    elapsed_s: float = 0.0
    """Active seconds of the run over all epochs."""
    disclosed: Mapping[str, str] = field(default_factory=dict)
    """Secrets that may be known now, such as the one that drew the prompts."""
    kind: Literal["stopped"] = "stopped"


Event = (
    RunStarted
    | EpochStarted
    | Proposed
    | Drafted
    | MutationDone
    | SentBack
    | Advised
    | Ended
    | RemeasureStarted
    | Remeasured
    | FinalMeasured
    | Faulted
    | Stopped
)
