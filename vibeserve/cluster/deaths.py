"""Decides which deaths of workers say nothing about a task: it was given to a worker that was dying of another.

Ray gives a worker the next task as soon as the one before has ended or was cancelled, and may learn a moment later that
the worker has gone with that one. Such a task has not begun, and is submitted again without being charged.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_DYING_S = 1.0


@dataclass(slots=True)
class Deaths:
    """Of one driver's workers. Times are seconds on any clock that never goes back."""

    _until_s: float = float("-inf")
    _spared: set[str] = field(default_factory=set)
    """Keys that were submitted again without a fault, and have not ended since."""

    def died(self, now_s: float) -> None:
        """A worker has died or is told to."""
        self._until_s = now_s + _DYING_S

    def may_spare(self, key: str, now_s: float) -> bool:
        """Whether a task that had not begun may have been given to a worker that was dying; once until it ends."""
        return now_s < self._until_s and key not in self._spared

    def spare(self, key: str) -> None:
        self._spared.add(key)

    def ended(self, key: str) -> None:
        """The task has a result, or a fault."""
        self._spared.discard(key)
