"""Decides what can happen in a run: the ledger's event types, and their one spelling as strict JSON.

Every event is frozen. What the ledger stamps (`time_s`, `active_s`) decides nothing but the wall-clock budget. JSON has
no infinity and no NaN: `inf` is written as the string "inf" (a latency of a failed request), NaN is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from population.candidate import Proposal
from population.evaluation import Place, Rejected, Scored
from population.genome import Genome
from population.objectives import Objective

if TYPE_CHECKING:
    from pydantic import TypeAdapter


class _Discriminator:
    """Spells pydantic's `Field(discriminator="kind")` without importing pydantic where nothing is (de)serialised."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import Discriminator

        return Discriminator("kind").__get_pydantic_core_schema__(source, handler)


AnyEvaluation = Annotated[Scored | Rejected, _Discriminator()]


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
    kind: Literal["mutation_done"] = "mutation_done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Stamped):
    """The child's evaluation; `elapsed_s` is the evaluation's alone.

    `place` is None where nothing was evaluated, and here and below in records older than the field.
    """

    number: int
    evaluation: AnyEvaluation
    elapsed_s: float = 0.0
    place: Place | None = None
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
    | MutationDone
    | Ended
    | RemeasureStarted
    | Remeasured
    | FinalMeasured
    | Faulted
    | Stopped
)

_SUSPICIOUS = re.compile(rb"(?i)nan|infinity")
_SURROGATE = re.compile("[\ud800-\udfff]")
_adapter: TypeAdapter[Event] | None = None


def _event_adapter() -> TypeAdapter[Event]:
    """Built at the first use: importing pydantic is too slow for `vibeserve --help`."""
    global _adapter
    if _adapter is None:
        from pydantic import ConfigDict, TypeAdapter

        _adapter = TypeAdapter(Annotated[Event, _Discriminator()], config=ConfigDict(extra="forbid"))
    return _adapter


def encode(event: Event) -> bytes:
    """One line of ASCII JSON without the line end. Text that is no valid Unicode gets U+FFFD for what is wrong.

    Raises:
        ValueError: the event holds a NaN, or values of types that it does not declare.
    """
    plain = _jsonable(_event_adapter().dump_python(event, mode="python", warnings="error"), event.kind)
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).encode("ascii")


def decode(line: bytes) -> Event:
    """The inverse of `encode`.

    Raises:
        ValueError: not JSON, an unknown kind or field, a missing field, a NaN or Infinity.
    """
    event = _event_adapter().validate_json(line)
    if _SUSPICIOUS.search(line):  # pydantic alone would take the literals, and the text "nan" where a number is due
        json.loads(line, parse_constant=_refuse_literal)
        encode(event)
    return event


def _jsonable(value: Any, where: str) -> Any:
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueError(f"{where}: expected a number, got NaN; reject the measurement before it is recorded")
        return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, str):
        return _SURROGATE.sub("�", value)
    if isinstance(value, Mapping):
        return {_jsonable(k, where): _jsonable(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_jsonable(v, where) for v in value]
    return value


def _refuse_literal(literal: str) -> NoReturn:
    raise ValueError(f'expected strict JSON with infinity as the string "inf", got the literal {literal}')
