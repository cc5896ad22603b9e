"""Decides where keys and values live between steps: nowhere, so every step computes the whole sequence again."""

from __future__ import annotations

import torch
from sequence import Sequence
from weights import ModelConfig


class KVCache:
    """Component `kv_cache`, interface 2."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self.config = config

    def allocate(self, seq: Sequence) -> bool:
        """Make room for seq.max_len tokens; False when there is none now."""
        return True

    def free(self, seq: Sequence) -> None:
        """Give the room back; does nothing for a sequence that was never allocated."""

    def slot(self, seq: Sequence) -> int:
        """A small number that belongs to `seq` alone from `allocate` to `free`."""
        return 0

    def cached_len(self, seq: Sequence) -> int:
        """How many leading tokens of `seq` have their K/V stored, or will once the launched steps are done."""
        return 0

    def commit(self, seq: Sequence, length: int) -> None:
        """K/V of [0, length) are stored by the steps launched so far."""
