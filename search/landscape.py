"""Decides how a policy sees the archive: costs, pedigrees, outcomes and what has been tried, as plain numbers.

A landscape is a pure function of archive and recipes. It is remembered per archive object and extended when children
were added, because recomputing ten thousand pedigrees for every proposal would cost more than the proposal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from population.archive import Archive
from population.candidate import Candidate, Child, Operator, Proposal
from population.dominance import Points
from population.evaluation import Scored, Stage
from population.genome import Genome, KnobValue
from search.pedigree import Descent, Pedigree

FloatArray = npt.NDArray[np.float64]
Key = Pedigree | tuple[str, tuple[str, ...]]

WRONG = (Stage.SMOKE, Stage.CHECKER, Stage.AUDIT)
"""Stages that reject a child because its answers are wrong, a verdict on the idea rather than on its execution."""


@dataclass(slots=True)
class History:
    """What the archive's children were made of and became, in the order in which they ended. Append-only."""

    numbers: list[int] = field(default_factory=list)
    pedigrees: dict[str, Pedigree] = field(default_factory=dict)
    """Candidate id → pedigree, for every child that became a commit."""
    tried: set[Key] = field(default_factory=set)
    """Pedigrees and (recipe or operator, parents) whose result is known."""

    def extend(self, child: Child, descent: Descent) -> None:
        proposal = child.proposal
        pedigree = descent.child(proposal, self.pedigrees)
        self.tried.update(keys(proposal, pedigree))
        if isinstance(child, Candidate) and pedigree is not None:
            self.pedigrees[child.id] = pedigree
            self.tried.add(with_all_knobs(pedigree, child.genome, {}))
        self.numbers.append(proposal.number)


def with_all_knobs(pedigree: Pedigree, genome: Genome, knobs: Mapping[str, KnobValue]) -> Pedigree:
    """The pedigree with the value of *every* knob spelled out, so that a knob set back to its default is recognised."""
    values = {name: knob.value for name, knob in genome.knobs.items()} | dict(knobs)
    return Pedigree(pedigree.recipes, frozenset(values.items()), pedigree.edits)


def keys(proposal: Proposal, pedigree: Pedigree | None) -> set[Key]:
    """Everything that a later proposal may not repeat. Free edits are never known beforehand."""
    if proposal.operator in (Operator.AGENT, Operator.REPAIR):
        return set()
    found: set[Key] = set() if pedigree is None else {pedigree}
    if proposal.operator is Operator.MERGE:
        found.add((Operator.MERGE, tuple(sorted(proposal.parents))))
    elif proposal.operator is Operator.RECIPE and not proposal.knobs:
        found.add((str(proposal.recipe), proposal.parents))
    return found


@dataclass(frozen=True)
class Landscape:
    """The archive in numbers. Axis N: scored members in the order of `ids`, M: objectives."""

    archive: Archive
    descent: Descent
    history: History
    ids: tuple[str, ...]
    points: Points
    """Costs and intervals (N, M)."""
    front_N: npt.NDArray[np.intp]
    """Indices of the front's members."""

    @cached_property
    def index(self) -> dict[str, int]:
        return {member: i for i, member in enumerate(self.ids)}

    @cached_property
    def reference_M(self) -> FloatArray:
        """Reference point of the hypervolume: the first scored member (the seed)."""
        reference: FloatArray = np.nan_to_num(self.points.costs_NM[0], posinf=1e3)
        return reference

    def genome(self, member: str) -> Genome:
        return self.archive.candidates[member].genome

    def pedigree(self, member: str) -> Pedigree:
        return self.history.pedigrees.get(member, Pedigree())

    @cached_property
    def outcomes(self) -> dict[str, list[Child]]:
        """Recipe name, or operator for the others → children that ended, as they ended."""
        found: dict[str, list[Child]] = {}
        for number in self.history.numbers:
            child = self.archive.children[number]
            found.setdefault(label(child.proposal), []).append(child)
        return found

    def taken(self, pending: Sequence[Proposal]) -> set[Key]:
        """What may not be proposed: known results and those in flight."""
        pedigrees = dict(self.history.pedigrees)
        flying: set[Key] = set()
        for proposal in pending:
            flying |= keys(proposal, self.descent.child(proposal, pedigrees))
            if proposal.operator is Operator.TUNE and proposal.parents[0] in pedigrees:
                parent = proposal.parents[0]
                flying.add(with_all_knobs(pedigrees[parent], self.genome(parent), proposal.knobs))
        return self.history.tried | flying


def label(proposal: Proposal) -> str:
    """Under which name the outcome of a proposal is remembered."""
    return f"recipe:{proposal.recipe}" if proposal.operator is Operator.RECIPE else str(proposal.operator)


def scored(child: Child) -> bool:
    return isinstance(child, Candidate) and isinstance(child.evaluation, Scored)


_memory: WeakKeyDictionary[Archive, tuple[Descent, History]] = WeakKeyDictionary()


def survey(archive: Archive, descent: Descent) -> Landscape:
    """The landscape of the archive as it is now."""
    before = _memory.get(archive)
    history = before[1] if before is not None and before[0] is descent else History()
    if len(history.numbers) < len(archive.children):
        for child in islice(archive.children.values(), len(history.numbers), None):
            history.extend(child, descent)
        _memory[archive] = (descent, history)
    ids = tuple(archive.scored)
    order = {member: i for i, member in enumerate(ids)}
    count = len(archive.objectives)
    bounds = [archive.bounds(member) for member in ids]
    return Landscape(
        archive=archive,
        descent=descent,
        history=history,
        ids=ids,
        points=Points(
            np.array([archive.costs(member) for member in ids]).reshape(-1, count),
            np.array([low for low, _ in bounds]).reshape(-1, count),
            np.array([high for _, high in bounds]).reshape(-1, count),
        ),
        front_N=np.array(sorted(order[member] for member in archive.front), dtype=np.intp),
    )
