"""Decides what a run has taught: which ideas were tried how often, what each gained, and where it is in the front."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from population.archive import Archive
from population.candidate import Operator, Proposal, candidate_id
from population.evaluation import Rejected
from population.statistics import Estimate, estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One child and what it gained over the parent that was edited."""

    child: str
    parent: str
    idea: str
    gains: Mapping[str, Estimate]
    """Objective → how many times better, with the interval of both measurements together; above 1 is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idea:
    """One way of changing a server, over all children that tried it."""

    name: str
    tried: int
    scored: int
    rejected: Mapping[str, int]
    """Stage → children."""
    gains: Mapping[str, Estimate]
    """Objective → geometric mean over the scored children; empty if there are none."""
    best: str | None
    """The child that gained most over all objectives together."""
    members: tuple[str, ...]
    """Members of the front that have it somewhere in their ancestry."""

    @property
    def worth(self) -> float:
        """Mean log gain over the objectives."""
        values = [math.log(g.value) for g in self.gains.values() if 0 < g.value < math.inf]
        return math.fsum(values) / len(values) if values else -math.inf


def idea_of(proposal: Proposal) -> str:
    """What a proposal tries: a recipe, knobs by name, or the operator alone."""
    if proposal.recipe:
        return proposal.recipe
    if proposal.knobs:
        return f"{proposal.operator} {', '.join(sorted(proposal.knobs))}"
    return str(proposal.operator)


def steps(archive: Archive) -> dict[str, Step]:
    """Every scored child whose parent is scored, by id."""
    found, scored = {}, frozenset(archive.scored)
    for child in archive.scored:
        proposal = archive.candidates[child].proposal
        if proposal.parents and proposal.parents[0] in scored:
            found[child] = Step(
                child=child,
                parent=proposal.parents[0],
                idea=idea_of(proposal),
                gains=gains_over(archive, child, proposal.parents[0]),
            )
    return found


def gains_over(archive: Archive, candidate: str, other: str) -> dict[str, Estimate]:
    """How many times better, per objective; log intervals of independent measurements add in squares."""
    ours, theirs = archive.estimates(candidate), archive.estimates(other)
    return {o.name: _ratio(o.gain(ours[o.name].value, theirs[o.name].value), ours[o.name], theirs[o.name])
            for o in archive.objectives}  # fmt: skip


def _ratio(gain: float, ours: Estimate, theirs: Estimate) -> Estimate:
    if not all(0 < end < math.inf for e in (ours, theirs) for end in (e.low, e.high)) or not 0 < gain < math.inf:
        return Estimate(value=gain, low=0.0, high=math.inf, n=min(ours.n, theirs.n))
    half = math.hypot(*(math.log(e.high / e.low) / 2 for e in (ours, theirs)))
    return Estimate(value=gain, low=gain * math.exp(-half), high=gain * math.exp(half), n=min(ours.n, theirs.n))


def ideas(archive: Archive) -> tuple[Idea, ...]:
    """Every idea that a child has ended with, the most valuable first."""
    taken = steps(archive)
    tried: dict[str, list[int]] = {}
    for number, child in archive.children.items():
        if child.proposal.operator is not Operator.SEED:
            tried.setdefault(idea_of(child.proposal), []).append(number)
    ancestry = {member: {idea_of(archive.candidates[a].proposal) for a in ancestors(archive, member)}
                for member in archive.front}  # fmt: skip
    found = [_idea(archive, name, numbers, taken, ancestry) for name, numbers in tried.items()]
    return tuple(sorted(found, key=lambda idea: (-idea.worth, idea.name)))


def _idea(
    archive: Archive,
    name: str,
    numbers: Sequence[int],
    taken: Mapping[str, Step],
    ancestry: Mapping[str, set[str]],
) -> Idea:
    scored, stages = frozenset(archive.scored), Counter[str]()
    made = [taken[candidate_id(n)] for n in numbers if candidate_id(n) in taken]
    for number in numbers:
        child = candidate_id(number)
        if child not in scored:
            known = (
                archive.evaluations(child) if child in archive.candidates else (archive.children[number].evaluation,)
            )
            stages[next(str(e.stage) for e in reversed(known) if isinstance(e, Rejected))] += 1
    gains = {}
    for o in archive.objectives:
        ratios = [v for step in made if 0 < (v := step.gains[o.name].value) < math.inf]
        if ratios:
            gains[o.name] = estimate(ratios, o.relative_noise * math.sqrt(2))
    best = max(made, key=lambda s: math.fsum(math.log(g.value) for g in s.gains.values() if 0 < g.value < math.inf),
               default=None)  # fmt: skip
    return Idea(
        name=name,
        tried=len(numbers),
        scored=sum(candidate_id(n) in scored for n in numbers),
        rejected=dict(stages),
        gains=gains,
        best=best.child if best else None,
        members=tuple(member for member, names in ancestry.items() if name in names),
    )


def ancestors(archive: Archive, member: str) -> tuple[str, ...]:
    """A candidate and everything it was made from, merges followed to both sides; itself first."""
    seen: dict[str, None] = {}
    open_ = [member]
    while open_:
        name = open_.pop()
        if name not in seen and name in archive.candidates:
            seen[name] = None
            open_ += archive.candidates[name].proposal.parents
    return tuple(seen)


def path_to(archive: Archive, member: str) -> tuple[str, ...]:
    """From the seed to a candidate along the parents that were edited."""
    names = [member]
    while (parents := archive.candidates[names[-1]].proposal.parents) and parents[0] in archive.candidates:
        names.append(parents[0])
    return tuple(reversed(names))
