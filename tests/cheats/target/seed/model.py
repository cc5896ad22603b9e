"""Decides the logits: a Llama forward pass in NumPy; linear layers on the rows of all segments, attention one by one.

Axes: R rows (tokens of all segments), T tokens of a segment, S positions so far, H heads, K key/value heads, D head
dimension, C hidden, V vocabulary.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(slots=True, kw_only=True)
class Cache:
    """Keys and values of one sequence; rows [0, length) are valid."""

    keys: Array
    values: Array
    length: int = 0


@dataclass(slots=True, kw_only=True)
class Segment:
    """Tokens to compute behind `cache`; logits are wanted for the last `want` of them."""

    ids: list[int]
    cache: Cache
    want: int = field(default=1)


class Model:
    """The weights, and what they say about the next token."""

    def __init__(self, artifacts: Path) -> None:
        self.config: dict[str, Any] = json.loads((artifacts / "config.json").read_text(encoding="utf-8"))
        self.vocab: list[str] = json.loads((artifacts / "vocab.json").read_text(encoding="utf-8"))
        self.weights = self._load(artifacts)
        self.layers = list(range(self.config["num_layers"]))
        half = self.config["head_dim"] // 2
        angles = np.outer(np.arange(self.config["max_len"]), self.config["rope_theta"] ** (-np.arange(half) / half))
        self._cos, self._sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def _load(self, artifacts: Path) -> dict[str, Array]:
        index = json.loads((artifacts / "weights.json").read_text(encoding="utf-8"))
        data = np.fromfile(artifacts / "weights.bin", dtype=np.float32)
        return {
            name: data[entry["offset"] // 4 :][: int(np.prod(entry["shape"]))].reshape(entry["shape"])
            for name, entry in index.items()
        }

    def cache(self) -> Cache:
        """Room for one sequence of any length."""
        config = self.config
        shape = (config["num_layers"], config["num_kv_heads"], config["max_len"], config["head_dim"])
        return Cache(keys=np.zeros(shape, dtype=np.float32), values=np.zeros(shape, dtype=np.float32))

    def forward(self, segments: list[Segment]) -> list[Array]:
        """Logits (want, V) of every segment; their K/V are in the caches afterwards, lengths included."""
        ends = np.cumsum([len(segment.ids) for segment in segments])
        x = self.weights["embed"][[token for segment in segments for token in segment.ids]]
        for layer in self.layers:
            x = x + self._attention(x, layer, segments)
            x = x + self._mlp(x, layer)
        for segment in segments:
            segment.cache.length += len(segment.ids)
        wanted = [row for end, segment in zip(ends, segments, strict=True) for row in range(end - segment.want, end)]
        logits = self._norm(x[wanted], self.weights["final_norm"]) @ self.weights["head"]
        return np.split(logits, np.cumsum([segment.want for segment in segments])[:-1])

    def _attention(self, x: Array, layer: int, segments: list[Segment]) -> Array:
        weights, dim = self.weights, self.config["head_dim"]
        normed = self._norm(x, weights[f"layers.{layer}.attn_norm"])
        q, k, v = ((normed @ weights[f"layers.{layer}.w{name}"]).reshape(len(x), -1, dim) for name in "qkv")
        out, row = np.empty((len(x), self.config["num_heads"] * dim), dtype=np.float32), 0
        for segment in segments:
            rows = slice(row, row + len(segment.ids))
            out[rows] = self._attend(q[rows], k[rows], v[rows], layer, segment.cache)
            row = rows.stop
        return np.asarray(out @ weights[f"layers.{layer}.wo"])

    def _attend(self, q: Array, k: Array, v: Array, layer: int, cache: Cache) -> Array:
        """One segment (T, heads, D) against everything before it and itself."""
        start, end = cache.length, cache.length + len(q)
        cache.keys[layer, :, start:end] = self._rotate(k, start).swapaxes(0, 1)
        cache.values[layer, :, start:end] = v.swapaxes(0, 1)
        keys, values = cache.keys[layer, :, :end], cache.values[layer, :, :end]
        heads, dim = len(keys), q.shape[-1]
        grouped = self._rotate(q, start).swapaxes(0, 1).reshape(heads, -1, dim)
        scores = (grouped @ keys.swapaxes(-1, -2) * np.float32(dim**-0.5)).reshape(heads, -1, len(q), end)
        scores[..., np.arange(end)[None, :] > np.arange(start, end)[:, None]] = -np.inf
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        out = scores.reshape(heads, -1, end) @ values
        return np.asarray(out.reshape(-1, len(q), dim).swapaxes(0, 1).reshape(len(q), -1))

    def _mlp(self, x: Array, layer: int) -> Array:
        weights = self.weights
        normed = self._norm(x, weights[f"layers.{layer}.mlp_norm"])
        gate = normed @ weights[f"layers.{layer}.w_gate"]
        return np.asarray(
            (gate / (1 + np.exp(-gate)) * (normed @ weights[f"layers.{layer}.w_up"]))
            @ weights[f"layers.{layer}.w_down"]
        )

    def _norm(self, x: Array, weight: Array) -> Array:
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        return np.asarray(x / np.sqrt(mean_square + np.float32(self.config["norm_eps"])) * weight)

    def _rotate(self, x: Array, start: int) -> Array:
        """Rotary positions from `start` on (T, heads, D)."""
        cos, sin = (table[start : start + len(x), None] for table in (self._cos, self._sin))
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
