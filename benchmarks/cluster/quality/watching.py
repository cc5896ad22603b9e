"""Decides what every contestant knows of an archive: who ended since it looked last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from population.archive import Archive
from population.candidate import Child


@dataclass(slots=True)
class Newcomers:
    """Children of an archive that were not seen yet, in the order in which they ended."""

    seen: int = 0

    def of(self, archive: Archive) -> list[Child]:
        found = list(islice(archive.children.values(), self.seen, None))
        self.seen += len(found)
        return found


class Alone:
    """Half of a policy: never measures anything again."""

    def remeasure(self, archive: Archive, pending: Sequence[str], rng: np.random.Generator) -> str | None:
        """See `search.policy.Policy.remeasure`."""
        return None
