"""Decides when a task under which the machine failed is tried again, and when it is given up.

A mutation runs nothing of a candidate's, so its faults are never the candidate's: a provider that is out, a full disk.
They are waited for with patience, each time twice as long; but one that gives no sign of life again and again, while
others work, has something of its own. An evaluation runs the candidate, which may break machines
by itself: it has a few attempts, each at once, because another machine is the best cure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

ATTEMPTS = 3
"""How often a machine may fail under one evaluation before it is given up, and a mutation hang while others work."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a task under which the machine has failed."""

    attempt: int
    """How often it has failed under this task by now."""
    wait_s: float | None
    """Seconds until it is to be tried again; None: it is given up."""


@dataclass(slots=True)
class Retries:
    """Counts the faults of one driver's life. Times are seconds on any clock that never goes back."""

    patience_s: float
    """For so long mutations are tried again while none of them works."""
    _faults: dict[str, int] = field(default_factory=dict)
    _hung: dict[str, int] = field(default_factory=dict)
    """Mutations → how often they have hung, from the first time on that others worked meanwhile."""
    _worked_s: float = -math.inf
    """When a mutation has worked last."""
    _outage_since_s: float | None = None

    def failed(
        self, key: str, now_s: float, *, mutation: bool, retryable: bool, wait_s: float | None = None
    ) -> Verdict:
        """The machine failed under the task; a mutation may be asked to wait for `wait_s` at least."""
        attempt = self._faults[key] = self._faults.get(key, 0) + 1
        if not retryable:
            return Verdict(attempt=attempt, wait_s=None)
        if not mutation:
            return Verdict(attempt=attempt, wait_s=0.0 if attempt < ATTEMPTS else None)
        if self._outage_since_s is None:
            self._outage_since_s = now_s
        least_s = wait_s or 0.0
        if now_s + least_s - self._outage_since_s >= self.patience_s:
            return Verdict(attempt=attempt, wait_s=None)
        own_s = min(_FIRST_WAIT_S * 2 ** min(attempt - 1, 10), _LONGEST_WAIT_S)
        return Verdict(attempt=attempt, wait_s=max(own_s, least_s))

    def hung(self, key: str, began_s: float) -> bool:
        """The mutation was taken back, since it gave no sign of life; whether that is its own doing by now."""
        if key in self._hung or self._worked_s > began_s:
            self._hung[key] = self._hung.get(key, 0) + 1
        return self._hung.get(key, 0) >= ATTEMPTS

    def worked(self, key: str, now_s: float, *, mutation: bool) -> None:
        """The task has a result; a mutation that has one ends an outage."""
        self._faults.pop(key, None)
        self._hung.pop(key, None)
        if mutation:
            self._outage_since_s = None
            self._worked_s = now_s

    def alone(self, key: str) -> bool:
        """Whether machines have failed under no other task that is unfinished: then it may break them itself."""
        return set(self._faults) <= {key}
