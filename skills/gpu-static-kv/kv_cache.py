"""Decides where keys and values live: in a few slots, each with room for the longest sequence."""

from __future__ import annotations

import torch
from knobs import read_knobs
from sequence import Sequence
from weights import ModelConfig


class KVCache:
    """Component `kv_cache`, interface 2. Axes: L layers, S slots, K key/value heads, N tokens, D head size."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        slots: int = read_knobs(__file__)["slots"]
        shape = (config.num_layers, slots, config.num_kv_heads, config.max_len, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self._free = list(range(slots - 1, -1, -1))
        self._slots: dict[int, int] = {}
        self._lengths: dict[int, int] = {}

    def allocate(self, seq: Sequence) -> bool:
        """Make room for seq.max_len tokens; False when there is none now."""
        if not self._free:
            return False
        self._slots[seq.id], self._lengths[seq.id] = self._free.pop(), 0
        return True

    def free(self, seq: Sequence) -> None:
        """Give the room back; does nothing for a sequence that was never allocated."""
        if seq.id in self._slots:
            self._free.append(self._slots.pop(seq.id))
            del self._lengths[seq.id]

    def slot(self, seq: Sequence) -> int:
        """A small number that belongs to `seq` alone from `allocate` to `free`."""
        return self._slots[seq.id]

    def cached_len(self, seq: Sequence) -> int:
        """How many leading tokens of `seq` have their K/V stored, or will once the launched steps are done."""
        return self._lengths[seq.id]

    def commit(self, seq: Sequence, length: int) -> None:
        """K/V of [0, length) are stored by the steps launched so far."""
        if seq.id in self._lengths:
            self._lengths[seq.id] = length
