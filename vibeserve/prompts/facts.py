"""Decides what a brief knows: of the target, of a parent, of those beside it, and of what failed before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evaluators.target import Target
from population.candidate import Proposal
from population.evaluation import Hotspot, Rejected
from population.genome import Genome
from vibeserve.display import MetricView


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What is the same for every child of a run."""

    target: Target
    menu: Mapping[str, str] = field(default_factory=dict)
    """Skill → its description."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A scored candidate beside others."""

    id: str
    how: str
    """Operator, and what it did."""
    parents: tuple[str, ...] = ()
    on_front: bool = False
    metrics: tuple[MetricView, ...] = ()
    before: tuple[MetricView, ...] = ()
    """The same of its first parent; empty where that was not scored."""
    diff: str = ""
    """From its first parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A child that was rejected."""

    id: str
    how: str
    parents: tuple[str, ...]
    verdict: Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The server that is to be changed."""

    member: Member
    files: tuple[tuple[str, int], ...]
    """Path and bytes."""
    genome: Genome
    hints: Mapping[str, float | str] = field(default_factory=dict)
    """Of the profiler; see `Scored.hints`."""
    profile: tuple[Hotspot, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """Everything that the maker of one child is told."""

    ground: Ground
    proposal: Proposal
    parents: tuple[Parent, ...]
    """The first is the one that is edited; a merge has two."""
    front: tuple[Member, ...] = ()
    front_size: int = 0
    """`front` may be a part of it."""
    inspirations: tuple[Member, ...] = ()
    lessons: tuple[Lesson, ...] = ()
