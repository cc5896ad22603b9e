"""Decides what the model computes: a plain float32 Llama forward pass in NumPy, the ground truth of this target.

Axes: B responses, T tokens, C hidden, H query heads, K key/value heads, D head dimension, V vocabulary.
Weight matrices are (in, out): y = x @ W.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
ALIGNMENT_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The shape of the model, as config.json gives it."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_len: int
    """Longest sequence in tokens, prompt and output together."""
    rope_theta: float
    norm_eps: float
    bos_id: int
    eos_id: int
    unk_id: int


def read_config(path: Path) -> Config:
    """Read config.json; keys that only `build.py` needs are ignored."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Config(**{name: data[name] for name in Config.__dataclass_fields__})


def weight_shapes(config: Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of the model, in file order."""
    c, d = config.hidden_size, config.head_dim
    yield "embed", (config.vocab_size, c)
    for layer in range(config.num_layers):
        yield f"layers.{layer}.attn_norm", (c,)
        yield f"layers.{layer}.wq", (c, config.num_heads * d)
        yield f"layers.{layer}.wk", (c, config.num_kv_heads * d)
        yield f"layers.{layer}.wv", (c, config.num_kv_heads * d)
        yield f"layers.{layer}.wo", (config.num_heads * d, c)
        yield f"layers.{layer}.mlp_norm", (c,)
        yield f"layers.{layer}.w_gate", (c, config.intermediate_size)
        yield f"layers.{layer}.w_up", (c, config.intermediate_size)
        yield f"layers.{layer}.w_down", (config.intermediate_size, c)
    yield "final_norm", (c,)
    yield "head", (c, config.vocab_size)


def read_weights(artifacts: Path) -> dict[str, Array]:
    """Map weights.bin into memory: name → read-only float32 view; the index is weights.json."""
    index = json.loads((artifacts / "weights.json").read_text(encoding="utf-8"))
    data = np.memmap(artifacts / "weights.bin", dtype=np.float32, mode="r")
    views: dict[str, Array] = {}
    for name, entry in index.items():
        start = entry["offset"] // 4
        views[name] = data[start : start + int(np.prod(entry["shape"]))].reshape(entry["shape"]).view(np.ndarray)
    return views


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return np.asarray(x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps)) * weight)


def rope_tables(config: Config, length: int) -> tuple[Array, Array]:
    """Cosines and sines (T, D/2) of positions 0 … length-1."""
    half = config.head_dim // 2
    inverse = config.rope_theta ** (-np.arange(half) / half)
    angles = np.arange(length)[:, None] * inverse[None, :]
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Apply rotary positions to (..., T, D): halves (a, b) → (a cos - b sin, b cos + a sin)."""
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


class Reference:
    """The whole forward pass, teacher-forced: hidden states of all positions of a padded batch."""

    def __init__(self, config: Config, weights: dict[str, Array]) -> None:
        self.config = config
        self.weights = weights

    def hidden(self, ids_BT: npt.NDArray[np.int64]) -> Array:
        """Final normed hidden states (B, T, C). Rows are right-padded; causality keeps the padding out."""
        cos, sin = rope_tables(self.config, ids_BT.shape[1])
        x = self.weights["embed"][ids_BT]
        for layer in range(self.config.num_layers):
            x = x + self._attention(x, f"layers.{layer}.", cos, sin)
            x = x + self._mlp(x, f"layers.{layer}.")
        return rms_norm(x, self.weights["final_norm"], self.config.norm_eps)

    def logits(self, hidden: Array) -> Array:
        """Logits (..., V) of hidden states (..., C)."""
        return hidden @ self.weights["head"]

    def _attention(self, x_BTC: Array, prefix: str, cos: Array, sin: Array) -> Array:
        config, w = self.config, self.weights
        batch, length, _ = x_BTC.shape
        normed = rms_norm(x_BTC, w[prefix + "attn_norm"], config.norm_eps)

        def heads(name: str, count: int) -> Array:
            return (normed @ w[prefix + name]).reshape(batch, length, count, config.head_dim).transpose(0, 2, 1, 3)

        group = config.num_heads // config.num_kv_heads
        q = rotate(heads("wq", config.num_heads), cos, sin)
        k = np.repeat(rotate(heads("wk", config.num_kv_heads), cos, sin), group, axis=1)
        v = np.repeat(heads("wv", config.num_kv_heads), group, axis=1)
        scores = q @ k.swapaxes(-1, -2) / np.float32(np.sqrt(config.head_dim))
        scores[..., np.triu(np.ones((length, length), dtype=bool), 1)] = -np.inf
        out = (softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(batch, length, -1)
        return np.asarray(out @ w[prefix + "wo"])

    def _mlp(self, x: Array, prefix: str) -> Array:
        w = self.weights
        normed = rms_norm(x, w[prefix + "mlp_norm"], self.config.norm_eps)
        gate = normed @ w[prefix + "w_gate"]
        return np.asarray((gate / (1 + np.exp(-gate)) * (normed @ w[prefix + "w_up"])) @ w[prefix + "w_down"])


def load_reference(artifacts: Path) -> Reference:
    """The reference model on the weights that `build.py` wrote."""
    return Reference(read_config(artifacts / "config.json"), read_weights(artifacts))
