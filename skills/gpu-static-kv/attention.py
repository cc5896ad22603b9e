"""Decides how rows attend: every sequence to its slot of the KV cache, one sequence after another.

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
        q, k, v = qkv.view(len(qkv), -1, self._dim).split([self._heads, self._kv_heads, self._kv_heads], dim=1)
        q, k = self._rope.rotate(q, batch.positions), self._rope.rotate(k, batch.positions)
        out = qkv.new_empty((len(qkv), self._heads * self._dim))
        for span in batch.spans:
            rows, end = slice(span.row, span.row + span.count), span.start + span.count
            keys, values = kv.keys[layer, span.slot, :, :end], kv.values[layer, span.slot, :, :end]
            keys[:, span.start :], values[:, span.start :] = k[rows].transpose(0, 1), v[rows].transpose(0, 1)
            mask = None
            if span.count > 1:
                mask = torch.arange(end, device=qkv.device)[None, :] <= batch.positions[rows][:, None]
            mixed = torch.nn.functional.scaled_dot_product_attention(
                q[rows].transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, enable_gqa=True
            )
            out[rows] = mixed[0].transpose(0, 1).reshape(span.count, -1)
        return out
