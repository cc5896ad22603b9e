"""Decides what the next step computes: every running sequence's next token, and prompts as far as the step has room."""

from __future__ import annotations

from collections import deque

from knobs import read_knobs
from kv_cache import KVCache
from phases import phase
from sequence import Segment, Sequence


class Scheduler:
    """Component `scheduler`, interface 2."""

    def __init__(self) -> None:
        knobs = read_knobs(__file__)
        self._max_running: int = knobs["max_running"]
        self._step_tokens: int = knobs["step_tokens"]
        self._waiting: deque[Sequence] = deque()
        self._prompting: list[Sequence] = []
        self._decoding: dict[int, Sequence] = {}

    def add(self, seq: Sequence) -> None:
        """Queue a new sequence."""
        self._waiting.append(seq)

    def remove(self, seq: Sequence) -> None:
        """Forget a finished or aborted sequence, queued or running; its cache is freed by the engine."""
        if self._decoding.pop(seq.id, None) is not None:
            return
        for queue in (self._prompting, self._waiting):
            if seq in queue:
                queue.remove(seq)

    def has_work(self) -> bool:
        """There are sequences that have not ended; all of them may be waiting for steps under way."""
        return bool(self._decoding or self._prompting or self._waiting)

    @phase("schedule")
    def schedule(self, kv: KVCache) -> list[Segment]:
        """At most one segment per sequence; empty if every sequence waits for its last token to be read."""
        segments = [
            Segment(seq, length - 1, length, True)
            for seq in self._decoding.values()
            if (length := seq.length) < seq.max_len
        ]
        room = self._step_tokens - len(segments)
        while room > 0:
            if not self._prompting and not self._admit(kv):
                break
            seq = self._prompting[0]
            start = kv.cached_len(seq)
            end = min(start + room, seq.prompt_len)
            segments.append(Segment(seq, start, end, end == seq.prompt_len))
            room -= end - start
            if end < seq.prompt_len:
                break
            self._prompting.remove(seq)
            self._decoding[seq.id] = seq
        return segments

    def _admit(self, kv: KVCache) -> bool:
        if not self._waiting or len(self._decoding) >= self._max_running or not kv.allocate(self._waiting[0]):
            return False
        self._prompting.append(self._waiting.popleft())
        return True
