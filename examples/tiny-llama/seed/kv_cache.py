"""Decides where keys and values live between steps: nowhere, so every step computes the whole sequence again."""

from __future__ import annotations

from sequence import Sequence
from weights import Array, ModelConfig


class KVCache:
    """Component `kv_cache`, interface 1. Axes: K key/value heads, T tokens, D head dimension."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config

    def allocate(self, seq: Sequence) -> bool:
        """Make room for seq.max_len tokens; False when there is none now. May find a prefix: see `cached_len`."""
        return True

    def free(self, seq: Sequence) -> None:
        """Give the room back; does nothing for a sequence that was never allocated."""

    def cached_len(self, seq: Sequence) -> int:
        """How many leading tokens of `seq` have their K/V stored; less than len(seq.tokens)."""
        return 0

    def extend(self, layer: int, seq: Sequence, start: int, kv_KTD: tuple[Array, Array]) -> tuple[Array, Array]:
        """Store keys and values of positions [start, start + T) of one layer and return those of [0, start + T).

        Within one step every layer extends from the same `start` = segment.start. What is returned may be a view,
        valid until the next call. Rows become part of `cached_len` only by `commit`.
        """
        if start != 0:
            raise ValueError(
                f"this cache stores nothing, so segments start at 0, got start={start} for sequence {seq.id}"
            )
        return kv_KTD

    def commit(self, seq: Sequence, length: int) -> None:
        """The K/V of [0, length) are valid from now on: once per segment after the step, rejected drafts left out."""
