"""Decides what the next step computes: first come, first served, one sequence at a time."""

from __future__ import annotations

from collections import deque

from kv_cache import KVCache
from phases import phase
from sequence import Segment, Sequence


class Scheduler:
    """Component `scheduler`, interface 2."""

    def __init__(self) -> None:
        self._waiting: deque[Sequence] = deque()
        self._running: Sequence | None = None

    def add(self, seq: Sequence) -> None:
        """Queue a new sequence."""
        self._waiting.append(seq)

    def remove(self, seq: Sequence) -> None:
        """Forget a finished or aborted sequence, queued or running; its cache is freed by the engine."""
        if seq is self._running:
            self._running = None
        elif seq in self._waiting:
            self._waiting.remove(seq)

    def has_work(self) -> bool:
        """There are sequences that have not ended; all of them may be waiting for steps under way."""
        return self._running is not None or bool(self._waiting)

    @phase("schedule")
    def schedule(self, kv: KVCache) -> list[Segment]:
        """At most one segment per sequence; empty if every sequence waits for its last token to be read."""
        if self._running is None and self._waiting and kv.allocate(self._waiting[0]):
            self._running = self._waiting.popleft()
        seq = self._running
        if seq is None or seq.remaining == 0:
            return []
        return [Segment(seq, kv.cached_len(seq), seq.length, True)]
