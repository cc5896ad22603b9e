"""Decides the logits: a Llama forward pass in NumPy, float32, one segment after another.

Axes: T positions of a segment, S positions so far, C hidden, K key/value heads, G query heads per key/value head,
D head dimension, V vocabulary. Weight matrices are (in, out): y = x @ W.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sequence import Segment
from weights import Array, read_config, read_weights

if TYPE_CHECKING:
    from kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer."""

    attn_norm: Array
    wq: Array
    wk: Array
    wv: Array
    wo: Array
    mlp_norm: Array
    w_gate: Array
    w_up: Array
    w_down: Array


class Model:
    """Component `model`, interface 1."""

    def __init__(self, artifacts: Path) -> None:
        self.config = read_config(artifacts)
        weights = read_weights(artifacts)
        self._embed, self._final_norm, self._head = weights["embed"], weights["final_norm"], weights["head"]
        self._layers = [
            Layer(*(weights[f"layers.{i}.{name}"] for name in Layer.__dataclass_fields__))
            for i in range(self.config.num_layers)
        ]
        half = self.config.head_dim // 2
        angles = np.outer(np.arange(self.config.max_len), self.config.rope_theta ** (-np.arange(half) / half))
        self._cos, self._sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def forward(self, segments: list[Segment], kv: KVCache) -> list[Array]:
        """Logits (want, V) of every segment, in order; K/V of its positions go to `kv`."""
        return [self._forward_one(segment, kv) for segment in segments]

    def _forward_one(self, segment: Segment, kv: KVCache) -> Array:
        x = self._embed[segment.token_ids]
        for index, layer in enumerate(self._layers):
            x = x + self._attention(x, index, segment, kv)
            x = x + self._mlp(x, layer)
        return self._norm(x[len(x) - segment.want :], self._final_norm) @ self._head

    def _attention(self, x: Array, index: int, segment: Segment, kv: KVCache) -> Array:
        config, layer = self.config, self._layers[index]
        start, end = segment.start, segment.end
        normed = self._norm(x, layer.attn_norm)
        q = self._rotate(self._split(normed @ layer.wq, config.num_heads), start, end)
        k = self._rotate(self._split(normed @ layer.wk, config.num_kv_heads), start, end)
        v = self._split(normed @ layer.wv, config.num_kv_heads)
        keys, values = kv.extend(index, segment.seq, start, (k, v))
        # Query heads of one group share their keys: (K, G, T, D) against (K, 1, S, D).
        grouped = q.reshape(config.num_kv_heads, -1, end - start, config.head_dim)
        scores = (grouped @ keys[:, None].swapaxes(-1, -2)) * np.float32(config.head_dim**-0.5)
        if end - start > 1:
            scores[..., np.arange(end)[None, :] > np.arange(start, end)[:, None]] = -np.inf
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        out = (scores @ values[:, None]).reshape(config.num_heads, end - start, config.head_dim)
        return np.asarray(out.swapaxes(0, 1).reshape(end - start, -1) @ layer.wo)

    def _mlp(self, x: Array, layer: Layer) -> Array:
        normed = self._norm(x, layer.mlp_norm)
        gate = normed @ layer.w_gate
        return np.asarray((gate / (1 + np.exp(-gate)) * (normed @ layer.w_up)) @ layer.w_down)

    def _norm(self, x: Array, weight: Array) -> Array:
        mean_square = np.einsum("tc,tc->t", x, x)[:, None] / np.float32(x.shape[1])
        return np.asarray(x / np.sqrt(mean_square + np.float32(self.config.norm_eps)) * weight)

    def _split(self, x: Array, heads: int) -> Array:
        """(T, heads * D) → (heads, T, D)."""
        return x.reshape(len(x), heads, self.config.head_dim).swapaxes(0, 1)

    def _rotate(self, x: Array, start: int, end: int) -> Array:
        """Rotary positions start … end-1 on (heads, T, D)."""
        cos, sin = self._cos[start:end], self._sin[start:end]
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
