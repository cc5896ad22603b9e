"""Decides what the next step computes: first come, first served, one sequence at a time."""

from __future__ import annotations

from collections import deque

from kv_cache import KVCache
from sampler import Sampler
from sequence import Segment, Sequence


class Scheduler:
    """Component `scheduler`, interface 1."""

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
        return self._running is not None or bool(self._waiting)

    def schedule(self, kv: KVCache, sampler: Sampler) -> list[Segment]:
        """At most one segment per sequence; every sequence in it has been allocated in `kv`."""
        if self._running is None and self._waiting and kv.allocate(self._waiting[0]):
            self._running = self._waiting.popleft()
        if self._running is None:
            return []
        seq = self._running
        draft = tuple(sampler.draft(seq)) if seq.num_generated else ()
        end = len(seq.tokens) + len(draft)
        return [Segment(seq=seq, start=kv.cached_len(seq), end=end, want=1 + len(draft), draft=draft)]
