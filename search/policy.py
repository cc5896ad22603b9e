"""The seam between the driver and the search: what a policy is asked, and what it may answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from population.archive import Archive
from population.candidate import Proposal


class Policy(Protocol):
    """A pure choice: the same archive, pending work, number and rng state give the same answer, on any machine.

    A policy keeps no state between calls (bandit counts are recomputed from the archive), so resume is replay.
    """

    def propose(
        self, archive: Archive, pending: Sequence[Proposal], number: int, rng: np.random.Generator
    ) -> Proposal | None:
        """The proposal for child `number`, or None if nothing is worth proposing until `pending` changes.

        Args:
            archive: every child that has ended; holds at least the scored seed.
            pending: children in flight, ordered by number; must not be duplicated.
            number: the child's number; the proposal carries it.
            rng: seeded by the driver from (run seed, number).
        """
        ...

    def remeasure(self, archive: Archive, pending: Sequence[str], rng: np.random.Generator) -> str | None:
        """The id of the candidate most worth measuring once more while slots are idle, or None.

        Args:
            pending: candidate ids being re-measured now.
        """
        ...
