"""Decides what a policy remembers of an archive's children, so that the next child costs no look at all of them.

Everything here is a pure function of the archive (and, in flight, of the pending proposals), reached by following what
was added and changed: an archive that was followed from its first child and one that is seen for the first time give
the same answers.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from population.archive import Archive
from population.candidate import Candidate, Child, Operator, Proposal
from population.evaluation import Rejected, Scored, Stage
from population.genome import Genome, Knob, KnobValue
from population.rows import Key as RowKey
from population.rows import Rows
from search.pedigree import Descent, Pedigree
from search.variation import to_unit


@dataclass(frozen=True, slots=True)
class Family:
    """All trees of the same recipes and free edits: they differ in their knobs alone."""

    recipes: frozenset[str]
    edits: frozenset[int]


Key = Pedigree | Family | tuple[str, tuple[str, ...]]

WRONG = (Stage.SMOKE, Stage.CHECKER, Stage.AUDIT)
"""Stages that reject a child because its answers are wrong, a verdict on the idea rather than on its execution."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where a tree lies for the surrogate."""

    genes: frozenset[str]
    knobs: Mapping[str, float]
    """Knob → position 0..1."""


def point(pedigree: Pedigree, knobs: Mapping[str, float]) -> Point:
    return Point(pedigree.recipes | {f"#{number}" for number in pedigree.edits}, knobs)


@dataclass(slots=True)
class Tally:
    """What became of the children of one kind."""

    passed: int = 0
    """Scored."""
    failed: int = 0
    """Rejected, not counting those whose tree existed already."""
    wrong: set[tuple[str, ...]] = field(default_factory=set)
    """Parents on which the answers were found wrong."""

    def count(self, child: Child) -> None:
        self.passed += scored(child)
        if isinstance(child.evaluation, Rejected):
            self.failed += child.evaluation.stage is not Stage.DEDUPE
            if child.evaluation.stage in WRONG:
                self.wrong.add(child.proposal.parents)


@dataclass(frozen=True, slots=True)
class Part:
    """What a candidate is made of."""

    pedigree: Pedigree
    knobs: Mapping[str, Knob]
    at: Point


class Order:
    """The scored candidates' rows by total cost, as `dominance.ranking` has them."""

    def __init__(self) -> None:
        self._keys: list[RowKey] = []
        self._key_of: dict[int, RowKey] = {}
        self._first = 0

    def update(self, gone: Iterable[int], come: Sequence[int], rows: Rows) -> None:
        for row in gone:
            if (key := self._key_of.pop(row, None)) is not None:
                del self._keys[bisect_left(self._keys, key)]
        keys = rows.keys(np.array(come, dtype=np.intp))
        self._key_of.update(zip(come, keys, strict=True))
        if len(keys) > 100:
            self._keys = sorted([*self._keys, *keys])
            return
        for key in keys:
            insort(self._keys, key)

    def best(self, count: int) -> Iterator[int]:
        """The first `count` rows."""
        return (int(key[-1]) for key in self._keys[:count])

    def first(self) -> int:
        """The oldest row."""
        while self._first not in self._key_of:
            self._first += 1  # who is scored no longer never is again
        return self._first


class History:
    """What the archive's children were made of and became; see the module."""

    def __init__(self, descent: Descent) -> None:
        self.descent = descent
        self.numbers: list[int] = []
        """Child numbers in the order in which they ended."""
        self.pedigrees: dict[str, Pedigree] = {}
        """Candidate id → pedigree, for every child that became a commit."""
        self.tried: set[Key] = set()
        """Pedigrees and (recipe or operator, parents) whose result is known."""
        self.flying: Counter[Key] = Counter()
        """The same of pending proposals; and of every family, how many of its knob changes are pending."""
        self.families: Counter[Family] = Counter()
        """How many children of a family have ended, whatever became of them."""
        self.outcomes: dict[str, Tally] = {}
        self.dials: set[str] = set()
        """Knobs of scored candidates that are said to trade objectives."""
        self.order = Order()
        self._changes = 0
        self._parts: dict[str, Part] = {}
        self._genomes: Mapping[str, Candidate] = {}
        self._pending: dict[int, tuple[Proposal, frozenset[Key]]] = {}
        self._orphans: set[int] = set()
        """Pending proposals of parents that are not known (yet)."""

    def follow(self, archive: Archive) -> None:
        """Everything that happened in the archive since the last time."""
        self._genomes = archive.candidates
        fresh = len(archive.children) - len(self.numbers)
        for child in archive.latest(fresh):
            self._extend(child)
        changed = dict.fromkeys(archive.changes[self._changes :])
        self._changes = len(archive.changes)
        if changed:
            self.order.update(changed, [r for r in changed if archive.is_scored(archive.names[r])], archive.rows)

    def part(self, member: str) -> Part:
        """What a candidate is made of."""
        part = self._parts.get(member)
        if part is None:
            knobs, pedigree = self._genomes[member].genome.knobs, self.pedigrees.get(member, Pedigree())
            at = point(pedigree, {name: to_unit(knob, knob.value) for name, knob in knobs.items()})
            part = self._parts[member] = Part(pedigree, knobs, at)
        return part

    def fly(self, pending: Sequence[Proposal]) -> None:
        """These proposals are in flight, and no others; costs what differs from the last time."""
        now = {proposal.number: proposal for proposal in pending}
        ended = [n for n, (known, _) in self._pending.items() if now.get(n) is not known]
        for number in {*ended, *self._orphans}:
            self._land(number)
        for number, proposal in now.items():
            if number not in self._pending:
                found = self._keys_in_flight(proposal)
                self._pending[number] = (proposal, found)
                self.flying.update(found)
                if not self.pedigrees.keys() >= set(proposal.parents):
                    self._orphans.add(number)

    def _land(self, number: int) -> None:
        self._orphans.discard(number)
        for key in self._pending.pop(number)[1]:
            self.flying[key] -= 1
            if not self.flying[key]:
                del self.flying[key]

    def _keys_in_flight(self, proposal: Proposal) -> frozenset[Key]:
        found = keys(proposal, self.descent.child(proposal, self.pedigrees))
        if proposal.operator is Operator.TUNE and proposal.parents[0] in self.pedigrees:
            parent = proposal.parents[0]
            found.add(with_all_knobs(self.pedigrees[parent], self._genomes[parent].genome, proposal.knobs))
            found.add(family(self.pedigrees[parent]))
        return frozenset(found)

    def _extend(self, child: Child) -> None:
        proposal = child.proposal
        pedigree = self.descent.child(proposal, self.pedigrees)
        self.tried.update(keys(proposal, pedigree))
        if pedigree is not None:
            self.families[family(pedigree)] += 1
        if isinstance(child, Candidate) and pedigree is not None:
            self.pedigrees[child.id] = pedigree
            self.tried.add(with_all_knobs(pedigree, child.genome, {}))
        if isinstance(child, Candidate) and scored(child):
            self.dials.update(name for name, knob in child.genome.knobs.items() if knob.trades)
        self.outcomes.setdefault(label(proposal), Tally()).count(child)
        self.numbers.append(proposal.number)


@dataclass(frozen=True, slots=True)
class Tried:
    """What may not be proposed: known results and those in flight."""

    history: History

    def __contains__(self, key: object) -> bool:
        return key in self.history.tried or key in self.history.flying


def family(pedigree: Pedigree) -> Family:
    return Family(pedigree.recipes, pedigree.edits)


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


def label(proposal: Proposal) -> str:
    """Under which name the outcome of a proposal is remembered."""
    return f"recipe:{proposal.recipe}" if proposal.operator is Operator.RECIPE else str(proposal.operator)


def scored(child: Child) -> bool:
    return isinstance(child, Candidate) and isinstance(child.evaluation, Scored)
