"""Decides what the next step computes: every running sequence decodes, waiting ones join as soon as there is room."""

from __future__ import annotations

from knobs import read_knobs
from kv_cache import KVCache
from sampler import Sampler
from sequence import Segment, Sequence


class Scheduler:
    """Component `scheduler`, interface 1."""

    def __init__(self) -> None:
        knobs = read_knobs(__file__)
        self._max_running: int = knobs["max_running"]
        self._prefills_per_step: int = knobs["prefills_per_step"]
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []

    def add(self, seq: Sequence) -> None:
        """Queue a new sequence."""
        self._waiting.append(seq)

    def remove(self, seq: Sequence) -> None:
        """Forget a finished or aborted sequence, queued or running; its cache is freed by the engine."""
        if seq in self._running:
            self._running.remove(seq)
        elif seq in self._waiting:
            self._waiting.remove(seq)

    def has_work(self) -> bool:
        return bool(self._running or self._waiting)

    def schedule(self, kv: KVCache, sampler: Sampler) -> list[Segment]:
        """At most one segment per sequence; every sequence in it has been allocated in `kv`."""
        self._admit(kv)
        prefills = [seq for seq in self._running if not seq.num_generated]
        decodes = [seq for seq in self._running if seq.num_generated]
        return self._compose(prefills, decodes, kv, sampler)

    def _admit(self, kv: KVCache) -> None:
        prefilling = sum(not seq.num_generated for seq in self._running)
        room = min(self._max_running - len(self._running), self._prefills_per_step - prefilling)
        for seq in self._waiting[: max(0, room)]:
            if not kv.allocate(seq):
                break
            self._running.append(seq)
            self._waiting.remove(seq)

    def _compose(
        self, prefills: list[Sequence], decodes: list[Sequence], kv: KVCache, sampler: Sampler
    ) -> list[Segment]:
        chunks = [self._prefill(seq, len(seq.tokens), kv) for seq in prefills]
        return chunks + [self._decode(seq, kv, sampler) for seq in decodes]

    def _prefill(self, seq: Sequence, limit: int, kv: KVCache) -> Segment:
        """The next at most `limit` tokens of a prompt; logits are wanted when it ends there."""
        start = kv.cached_len(seq)
        end = min(start + limit, len(seq.tokens))
        return Segment(seq=seq, start=start, end=end, want=int(end == len(seq.tokens)))

    def _decode(self, seq: Sequence, kv: KVCache, sampler: Sampler) -> Segment:
        draft = tuple(sampler.draft(seq))
        end = len(seq.tokens) + len(draft)
        return Segment(seq=seq, start=kv.cached_len(seq), end=end, want=1 + len(draft), draft=draft)
