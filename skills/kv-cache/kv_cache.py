"""Decides where keys and values live between steps: one slot of max_len rows per sequence, in one array per layer."""

from __future__ import annotations

import heapq

import numpy as np
from sequence import Sequence
from weights import Array, ModelConfig

NUM_SLOTS = 64
"""Most sequences at once. Rows that are never written take no memory: the operating system maps them lazily."""


class KVCache:
    """Component `kv_cache`, interface 1, with slots. Axes: N slots, K key/value heads, T tokens, D head dimension."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        shape = (config.num_layers, NUM_SLOTS, config.num_kv_heads, config.max_len, config.head_dim)
        self.keys = np.zeros(shape, dtype=np.float32)
        """(layer, N, K, T, D); capability `kv-slots`: a model may write rows here itself, without `extend`."""
        self.values = np.zeros(shape, dtype=np.float32)
        self._free = list(range(NUM_SLOTS))
        self._slots: dict[int, int] = {}
        self._lengths: dict[int, int] = {}

    def allocate(self, seq: Sequence) -> bool:
        """Make room for seq.max_len tokens; False when there is none now."""
        if not self._free:
            return False
        # The lowest free slot, so that the slots in use stay a dense range and a batch can be a view of the arrays.
        self._slots[seq.id] = heapq.heappop(self._free)
        self._lengths[seq.id] = 0
        return True

    def free(self, seq: Sequence) -> None:
        """Give the room back; does nothing for a sequence that was never allocated."""
        slot = self._slots.pop(seq.id, None)
        if slot is not None:
            heapq.heappush(self._free, slot)
            del self._lengths[seq.id]

    def cached_len(self, seq: Sequence) -> int:
        """How many leading tokens of `seq` have their K/V stored; less than len(seq.tokens)."""
        return self._lengths.get(seq.id, 0)

    def slot(self, seq: Sequence) -> int:
        """Index of the sequence on axis N."""
        return self._slots[seq.id]

    def extend(self, layer: int, seq: Sequence, start: int, kv_KTD: tuple[Array, Array]) -> tuple[Array, Array]:
        """Store keys and values of positions [start, start + T) of one layer and return those of [0, start + T)."""
        slot, end = self._slots[seq.id], start + kv_KTD[0].shape[1]
        keys, values = self.keys[layer, slot], self.values[layer, slot]
        keys[:, start:end], values[:, start:end] = kv_KTD
        return keys[:, :end], values[:, :end]

    def commit(self, seq: Sequence, length: int) -> None:
        """From now on the K/V of [0, length) are valid; rows behind it are overwritten later."""
        self._lengths[seq.id] = length
