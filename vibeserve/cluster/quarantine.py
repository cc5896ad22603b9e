"""Decides which nodes get no more work, because evaluations keep failing there through no fault of a candidate's.

A broken GPU fails every evaluation in seconds and so is always free: without this it would draw all work to itself.
Only what an evaluation itself reports counts, a GPU that no longer answers or a full disk: a worker that just dies may
have been killed by its candidate.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_STRIKES = 2


@dataclass(slots=True)
class Quarantine:
    """Counts the faults in a row of each node, by Ray's node id; one driver's life long."""

    _struck: dict[str, int] = field(default_factory=dict)

    @property
    def nodes(self) -> frozenset[str]:
        """Those that are to get no more work."""
        return frozenset(node for node, count in self._struck.items() if count >= _STRIKES)

    def failed(self, node: str) -> bool:
        """An evaluation reported a fault of the machine; True if that puts the node in quarantine."""
        self._struck[node] = self._struck.get(node, 0) + 1
        return self._struck[node] == _STRIKES

    def worked(self, node: str) -> None:
        """An evaluation had a result there; what was begun before a quarantine does not end it."""
        if node not in self.nodes:
            self._struck.pop(node, None)
