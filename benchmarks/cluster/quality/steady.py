"""Decides how a simulated run goes: `slots` children pending at any time, each for a heavy-tailed time, no barrier."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from population.archive import Archive
from population.candidate import Operator, Proposal
from population.objectives import FloatArray
from search.policy import Policy

_SEED_S = 1.0


class World(Protocol):
    """What proposals yield; costs are logarithms to be minimised, axis M objectives."""

    archive: Archive

    def duration_s(self, proposal: Proposal) -> float:
        """Simulated seconds from proposal to result."""
        ...

    def finish(self, proposal: Proposal, cost_s: float) -> None:
        """Put the child into the archive."""
        ...

    def true_costs(self, member: str) -> FloatArray:
        """Noise-free costs (M,) of a scored member."""
        ...

    @property
    def best_M(self) -> FloatArray:
        """Best attainable cost in every objective alone."""
        ...

    @property
    def reference_M(self) -> FloatArray:
        """Reference point of the hypervolume."""
        ...

    @property
    def volume(self) -> float:
        """Hypervolume of the true front."""
        ...


@dataclass(frozen=True, slots=True)
class Course:
    """What a run gave."""

    children: int
    """That ended. Less than the budget when the policy had nothing left to propose."""
    makespan_s: float
    """Simulated seconds until the last ended."""


def run(world: World, policy: Policy, slots: int, children: int, seed: int) -> Course:
    """Draw, wait for whichever ends first, draw again, until `children` have ended."""
    world.finish(Proposal(number=0, operator=Operator.SEED), _SEED_S)
    flying: dict[int, Proposal] = {}
    ends: list[tuple[float, int]] = []
    now_s, number = 0.0, 1
    while True:
        while len(flying) < slots and number <= children:
            # Numbers only grow, so the values are in their order, as a policy expects.
            rng = np.random.default_rng([seed, number])
            proposal = policy.propose(world.archive, list(flying.values()), number, rng)
            if proposal is None:
                break
            flying[number] = proposal
            heapq.heappush(ends, (now_s + world.duration_s(proposal), number))
            number += 1
        if not ends:
            return Course(number - 1, now_s)
        before_s, (now_s, ended) = now_s, heapq.heappop(ends)
        world.finish(flying.pop(ended), now_s - before_s)
