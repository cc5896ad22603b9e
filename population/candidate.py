"""Decides what a proposal, a child and a candidate are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from population.evaluation import Evaluation, Rejected
from population.genome import Genome, KnobValue


class Operator(StrEnum):
    """How a child is made."""

    SEED = "seed"
    RECIPE = "recipe"
    TUNE = "tune"
    MERGE = "merge"
    AGENT = "agent"
    REPAIR = "repair"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Parents, inspirations, operator and brief of one child, as a policy chose them. Frozen once in the ledger."""

    number: int
    """Child number, 0 for the seed; the child's rng is `numpy.random.default_rng([run_seed, number])`."""
    operator: Operator
    parents: tuple[str, ...] = ()
    """Candidate ids; the first is the one that is edited, a merge has two."""
    inspirations: tuple[str, ...] = ()
    """Candidate ids whose diffs and verdicts go into the brief of an LLM mutator."""
    goal: str | None = None
    """What to aim at, e.g. a gap of the front to fill."""
    recipe: str | None = None
    """RECIPE: the recipe's name."""
    knobs: Mapping[str, KnobValue] = field(default_factory=dict)
    """TUNE: `component.knob` → new value (RECIPE: initial values other than the recipe's defaults)."""
    model: str | None = None
    """AGENT, MERGE: who of several models makes it, by its name in `[[agents.models]]`. None: there is one, or none."""

    @property
    def id(self) -> str:
        return candidate_id(self.number)


def candidate_id(number: int) -> str:
    """`c000123` for child 123."""
    return f"c{number:06d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A child that became a commit of the population repository, with its evaluation.

    `evaluation` is the first one; samples of re-measurements are pooled in by the archive.
    """

    proposal: Proposal
    commit: str
    tree: str
    genome: Genome
    evaluation: Evaluation
    cost_s: float
    """Wall seconds of mutation and evaluation together."""

    @property
    def id(self) -> str:
        return self.proposal.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A tree of a child that was rejected, and from which the child went back to who made it."""

    commit: str
    tree: str
    genome: Genome
    evaluation: Rejected
    cost_s: float
    """Wall seconds of this attempt's mutation and evaluation together."""
    by_model: bool
    """Whether a model was asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A child that never became a commit: the mutation failed, or its tree existed already (stage `dedupe`)."""

    proposal: Proposal
    evaluation: Rejected
    cost_s: float


Child = Candidate | Failure
