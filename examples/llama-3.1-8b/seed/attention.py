"""Decides how rows attend: every sequence to its own rows of this step, one sequence after another.

Axes: T rows, H query heads, K key/value heads, D head dimension.
"""

from __future__ import annotations

import torch
from batch import Batch
from kv_cache import KVCache
from rope import Rope
from weights import ModelConfig


class Attention:
    """Component `attention`, interface 2."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._heads, self._kv_heads, self._dim = config.num_heads, config.num_kv_heads, config.head_dim
        self._rope = Rope(config, device)

    def attend(self, layer: int, qkv: torch.Tensor, batch: Batch, kv: KVCache) -> torch.Tensor:
        """Rotate, store K/V of all rows, attend: (T, (H + 2 K) D) → (T, H D). `qkv` may be overwritten."""
        out = qkv.new_empty((qkv.shape[0], self._heads * self._dim))
        for span in batch.spans:
            if span.start != 0:
                raise ValueError(f"nothing is stored between steps, so spans start at 0, got {span}")
            rows = slice(span.row, span.row + span.count)
            split = (
                qkv[rows].view(span.count, -1, self._dim).split([self._heads, self._kv_heads, self._kv_heads], dim=1)
            )
            q, k = (self._rope.rotate(x, batch.positions[rows]) for x in split[:2])
            mixed = torch.nn.functional.scaled_dot_product_attention(
                *(x.transpose(0, 1)[None] for x in (q, k, split[2])), is_causal=True, enable_gqa=True
            )
            out[rows] = mixed[0].transpose(0, 1).reshape(span.count, -1)
        return out
