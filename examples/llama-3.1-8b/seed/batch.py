"""Decides what a step tells the model: rows of tokens, where they stand, and which of them want logits.

Rows: one sequence after the other, then padding if a runner wants any.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sequence import Segment, Sequence

QUERY_BLOCK = 16
"""Rows of one sequence that attend together, at most."""
UNKNOWN = -1
"""In place of an id: the token that the sequence was given last, which the host has not read yet."""
Integers = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring rows of one sequence."""

    row: int
    """Its first row in the batch."""
    count: int
    slot: int
    """`KVCache.slot` of the sequence."""
    start: int
    """Position of its first row; K/V of [0, start) are in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A step of T rows on the device; tensors are int32."""

    ids: torch.Tensor
    """(T,) token ids."""
    positions: torch.Tensor
    """(T,)"""
    slots: torch.Tensor
    """(T,) `KVCache.slot` of each row's sequence."""
    counts: torch.Tensor
    """(2,) rows, query blocks: what is beyond is padding."""
    block_rows: torch.Tensor
    """(Q,) first row of each query block: at most QUERY_BLOCK neighbouring rows of a sequence."""
    block_lens: torch.Tensor
    """(Q,) rows of each query block."""
    logit_rows: torch.Tensor | None
    """(R,) rows whose logits are wanted; None for all."""
    prompts: bool
    """There may be sequences with more than one row: false spares a step what only they need."""
    spans: tuple[Span, ...]
    """The sequences, for code that goes from one to the next; empty where a recorded graph must not depend on them."""


class Rows:
    """A step of T rows on the host."""

    def __init__(self, segments: Items[Segment], slot: Callable[[Sequence], int]) -> None:
        self._segments, counts = segments, [s.end - s.start for s in segments]
        self._slots = [slot(s.seq) for s in self._segments]
        self._firsts = np.cumsum([0, *counts])[:-1]
        self.wanted = [s for s in self._segments if s.want]
        """The segments that want a token, in the order of `logit_rows`."""
        self.ids: Integers = _concatenated([_ids(s) for s in self._segments])
        """(T,) with UNKNOWN where only the device knows."""
        self.positions: Integers = _concatenated([range(s.start, s.end) for s in self._segments])
        self.slots: Integers = np.repeat(np.array(self._slots, dtype=np.int32), counts)
        self.logit_rows: Integers = np.array(
            [row + n - 1 for s, row, n in zip(self._segments, self._firsts, counts, strict=True) if s.want], np.int32
        )
        self.logit_slots: Integers = self.slots[self.logit_rows]
        self.prompts = any(n > 1 for n in counts)
        """There are sequences with more than one row."""
        blocks = [
            (s.start + first, row + first, min(QUERY_BLOCK, n - first))
            for s, row, n in zip(segments, self._firsts, counts, strict=True)
            for first in range(0, n, QUERY_BLOCK)
        ]
        # Those that attend to most come first, so that none of them is left for the end.
        blocks.sort(reverse=True)
        self.block_rows: Integers = np.array([row for _, row, _ in blocks], dtype=np.int32)
        self.block_lens: Integers = np.array([length for _, _, length in blocks], dtype=np.int32)
        self.counts: Integers = np.array([len(self.ids), len(blocks)], dtype=np.int32)

    def spans(self) -> tuple[Span, ...]:
        """The sequences in the order of their rows."""
        return tuple(
            Span(int(row), s.end - s.start, slot, s.start)
            for row, s, slot in zip(self._firsts, self._segments, self._slots, strict=True)
        )


def _ids(segment: Segment) -> list[int]:
    return segment.seq.tokens[segment.start : segment.end] or [UNKNOWN]


def _concatenated(parts: list[list[int]] | list[range]) -> Integers:
    return np.array([value for part in parts for value in part], dtype=np.int32)
