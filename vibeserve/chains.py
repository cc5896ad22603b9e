"""Decides what travels with a commit: the deltas that lead to it from the seed, which every machine has."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from population.archive import Archive
from population.repository import Repository
from vibeserve.executor import Delta

_KEPT_BYTES = 64 << 20
"""Deltas kept in memory; older ones are read again."""


class Chains:
    """Lineages of one run as deltas, every ancestor before its descendants."""

    def __init__(self, repository: Repository, seed: str) -> None:
        self._repository, self._seed = repository, seed
        self._kept: OrderedDict[str, Delta] = OrderedDict()
        self._bytes = 0

    def to(self, archive: Archive, candidates: Sequence[str]) -> tuple[Delta, ...]:
        """What leads to these candidates, each commit once; work in proportion to the lineage, not to the archive."""
        found: dict[str, Delta] = {}
        stack = [(candidate, False) for candidate in reversed(candidates)]
        while stack:
            name, parents_done = stack.pop()
            candidate = archive.candidates[name]
            if candidate.commit == self._seed or candidate.commit in found:
                continue
            if parents_done:
                found[candidate.commit] = self.delta(candidate.commit)
                continue
            stack.append((name, True))
            stack += [(parent, False) for parent in candidate.proposal.parents]
        return tuple(found.values())

    def then(self, chain: tuple[Delta, ...], commit: str) -> tuple[Delta, ...]:
        """The chain with one more commit at its end; the seed adds nothing."""
        return chain if commit == self._seed else (*chain, self.delta(commit))

    def delta(self, commit: str) -> Delta:
        """A commit's delta, from memory if it was used lately."""
        kept = self._kept.get(commit)
        if kept is None:
            return self.keep(Delta(commit=commit, data=self._repository.delta(commit)))
        self._kept.move_to_end(commit)
        return kept

    def keep(self, delta: Delta) -> Delta:
        """A delta that will be asked for soon."""
        if delta.commit not in self._kept:
            self._kept[delta.commit] = delta
            self._bytes += len(delta.data)
            while self._bytes > _KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1].data)
        return delta
