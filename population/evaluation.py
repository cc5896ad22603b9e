"""Decides what an evaluation can be: `Scored` with samples of every metric, or `Rejected` with stage and reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class Stage(StrEnum):
    """Where a child is, or where it ended; in the order in which a child passes them."""

    MUTATE = "mutate"
    DEDUPE = "dedupe"
    STATIC = "static"
    BOOT = "boot"
    SMOKE = "smoke"
    CHECKER = "checker"
    BENCHMARK = "benchmark"
    PROFILE = "profile"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A candidate that was proven accurate, and what was measured.

    `samples` holds, per metric name, one value per repeat (all metrics the client reports, the objectives among them);
    pooled estimates are made from them with `population.statistics.estimate`. `inf` is a legal sample of a latency.
    """

    samples: Mapping[str, tuple[float, ...]]
    flags: tuple[str, ...] = ()
    """Caveats such as `noisy`, `client_bound`, `short` (racing stopped it early)."""
    tier: str = "C"
    """Isolation tier the measurement ran under."""
    gaps: tuple[str, ...] = ()
    """What that tier left open on that machine, one clause each; records older than this field have none."""
    measured_by: Literal["client", "target"] = "client"
    audit: Mapping[str, float] = field(default_factory=dict)
    """Audit figures: mean_gap, p999_gap, max_gap (units of the logit standard deviation), flip_rate, tokens."""
    hints: Mapping[str, float | str] = field(default_factory=dict)
    """Profile: function or phase -> share of server time (0..1), or a text."""
    stage_s: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds per stage."""
    hardware: str = ""
    """CPUs and GPUs of the lease by model, e.g. `2 × AMD EPYC 9554`; empty in records older than this field."""
    kind: Literal["scored"] = "scored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A child that is not a candidate for the front, and why; a value, never an exception."""

    stage: Stage
    reason: str
    """One sentence: what was expected, what came."""
    evidence: str = ""
    """Bounded raw text: last log lines, the checker's output, offending tokens (at most 4,000 characters)."""
    tier: str = "C"
    gaps: tuple[str, ...] = ()
    """As of `Scored`."""
    stage_s: Mapping[str, float] = field(default_factory=dict)
    kind: Literal["rejected"] = "rejected"


Evaluation = Scored | Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an evaluation ran: a node by its name, and what of it nobody else had meanwhile."""

    node: str
    gpus: tuple[str, ...] = ()
    """As in CUDA_VISIBLE_DEVICES."""
    cpus: tuple[int, ...] = ()
    """Logical CPUs, ascending."""

    def __str__(self) -> str:
        """`node GPU 0 CPUs 0–3`."""
        words = (self.node, _counted("GPU", self.gpus), _counted("CPU", self.cpus))
        return " ".join(word for word in words if word)


def _counted(what: str, numbers: Sequence[int | str]) -> str:
    """`CPUs 0–3 8`, in their order; empty for none."""
    spans: list[list[int | str]] = []
    for number in numbers:
        if spans and isinstance(number, int) and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    texts = [str(span[0]) if len(span) == 1 else f"{span[0]}–{span[-1]}" for span in spans]
    return f"{what}{'s' * (len(numbers) > 1)} {' '.join(texts)}" if texts else ""
