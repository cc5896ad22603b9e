"""Decides where keys and values live: in pages of a pool, handed out when a sequence is admitted."""

from __future__ import annotations

import torch
from knobs import read_knobs
from sequence import Sequence
from weights import ModelConfig

PAGE = 64
"""Tokens per page: one block of the attention kernels."""
MAX_SLOTS = 1024
"""Sequences at a time. Slot MAX_SLOTS belongs to padding rows, and page 0 to that slot."""


class KVCache:
    """Component `kv_cache`, interface 2. Axes: L layers, P pages, K key/value heads, D head dimension."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.max_len = config.max_len
        pages = self._pages(config, dtype.itemsize)
        shape = (config.num_layers, pages, config.num_kv_heads, PAGE, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        width = -(-config.max_len // PAGE)
        self.table = torch.zeros((MAX_SLOTS + 1, width), dtype=torch.int32, device=device)
        """(slots + 1, W): the pages of each slot in order."""
        self._staged = torch.zeros((MAX_SLOTS, width), dtype=torch.int32, pin_memory=device.type == "cuda")
        self._free_pages = list(range(pages - 1, 0, -1))
        self._free_slots = list(range(MAX_SLOTS - 1, -1, -1))
        self._slots: dict[int, int] = {}
        self._pages_of: dict[int, list[int]] = {}
        self._lengths: dict[int, int] = {}

    @staticmethod
    def _pages(config: ModelConfig, itemsize: int) -> int:
        each = 2 * config.num_layers * config.num_kv_heads * PAGE * config.head_dim * itemsize
        longest = -(-config.max_len // PAGE)
        # A sequence alone must always fit; no more than every slot can fill.
        return 1 + max(longest, min(int(read_knobs(__file__)["kv_gib"] * 2**30) // each, MAX_SLOTS * longest))

    def allocate(self, seq: Sequence) -> bool:
        """Make room for seq.max_len tokens; False when there is none now."""
        need = -(-seq.max_len // PAGE)
        if not self._free_slots or need > len(self._free_pages):
            return False
        slot = self._free_slots.pop()
        pages = [self._free_pages.pop() for _ in range(need)]
        self._slots[seq.id], self._pages_of[seq.id], self._lengths[seq.id] = slot, pages, 0
        staged = self._staged[slot, :need]
        staged.copy_(torch.tensor(pages, dtype=torch.int32))
        self.table[slot, :need].copy_(staged, non_blocking=True)
        return True

    def free(self, seq: Sequence) -> None:
        """Give the room back; does nothing for a sequence that was never allocated.

        A step that is still under way may write to these pages once more; whoever gets them writes later on the same
        stream, before it reads.
        """
        if seq.id in self._slots:
            self._free_slots.append(self._slots.pop(seq.id))
            self._free_pages.extend(reversed(self._pages_of.pop(seq.id)))
            del self._lengths[seq.id]

    def slot(self, seq: Sequence) -> int:
        return self._slots[seq.id]

    def cached_len(self, seq: Sequence) -> int:
        """How many leading tokens of `seq` have their K/V stored, or will once the launched steps are done."""
        return self._lengths[seq.id]

    def commit(self, seq: Sequence, length: int) -> None:
        """K/V of [0, length) are stored by the steps launched so far."""
        if seq.id in self._lengths:
            self._lengths[seq.id] = length
