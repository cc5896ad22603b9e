"""Decides the logits: one pass for all segments of a step; linear layers on all rows, attention padded over slots.

Axes: R rows (tokens of all segments together), N slots in the padded batch, P positions per slot, S positions so far,
C hidden, H query heads, K key/value heads, G = H / K, D head dimension, V vocabulary. Weights are (in, out).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from knobs import read_knobs
from sequence import Segment
from weights import Array, read_config, read_weights

if TYPE_CHECKING:
    from kv_cache import KVCache

Index = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer, as `Model._prepare` lays them out."""

    attn_norm: Array
    wq: Array
    wk: Array
    wv: Array
    wo: Array
    mlp_norm: Array
    w_gate: Array
    w_up: Array
    w_down: Array


class Padded(NamedTuple):
    """Short segments (decodes, drafts) as one batch over the range of slots [first, first + N)."""

    rows: Index
    slots: Index
    """Per row its slot relative to `first`."""
    offsets: Index
    """Per row its position within the segment: axis P."""
    first: int
    shape: tuple[int, int, int]
    """(N, P, S)."""
    mask: Array
    """(N, 1, P, 1, S): 0 where a row may look, -inf elsewhere."""


class Batch(NamedTuple):
    """One step: what every layer needs to know about its segments."""

    ids: Index
    positions: Index
    slots: Index
    wanted: Index
    long: list[tuple[int, int, int, int]]
    """Per long segment: first row, end row, slot, first position."""
    padded: Padded | None


class Model:
    """Component `model`, interface 1; needs a KV cache with slots."""

    def __init__(self, artifacts: Path) -> None:
        self.config = read_config(artifacts)
        knobs = read_knobs(__file__)
        self._max_padded: int = knobs["max_padded"]
        weights = read_weights(artifacts)
        self._embed, self._final_norm = weights["embed"], weights["final_norm"]
        self._head = self._prepare(weights["head"])
        self._layers = [self._load_layer(weights, f"layers.{i}.") for i in range(self.config.num_layers)]
        half = self.config.head_dim // 2
        angles = np.outer(np.arange(self.config.max_len), self.config.rope_theta ** (-np.arange(half) / half))
        self._cos, self._sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def _load_layer(self, weights: dict[str, Array], prefix: str) -> Layer:
        return Layer(
            *(
                weights[prefix + name] if name.endswith("norm") else self._prepare(weights[prefix + name])
                for name in Layer.__dataclass_fields__
            )
        )

    def _prepare(self, weight: Array) -> Array:
        """A weight matrix (in, out) laid out for `_linear`; a copy, because mapped files have small memory pages."""
        return weight.copy()

    def _linear(self, x: Array, weight: Array) -> Array:
        return np.matmul(x, weight)

    def forward(self, segments: list[Segment], kv: KVCache) -> list[Array]:
        """Logits (want, V) of every segment, in order; K/V of its positions go to `kv`."""
        batch = make_batch(segments, kv, self._max_padded)
        rotation = self._cos[batch.positions][:, None], self._sin[batch.positions][:, None]
        x = self._embed[batch.ids]
        for index, layer in enumerate(self._layers):
            x += self._attention(self._norm(x, layer.attn_norm), index, batch, rotation, kv)
            x += self._mlp(self._norm(x, layer.mlp_norm), layer)
        logits = self._linear(self._norm(x[batch.wanted], self._final_norm), self._head)
        ends = np.cumsum([segment.want for segment in segments])
        return [logits[end - segment.want : end] for end, segment in zip(ends, segments, strict=True)]

    def _attention(self, normed: Array, index: int, batch: Batch, rotation: tuple[Array, Array], kv: KVCache) -> Array:
        config, layer = self.config, self._layers[index]
        q, k, v = self._project(normed, layer)
        q, k = self._rotate(q, rotation), self._rotate(k, rotation)
        keys, values = kv.keys[index], kv.values[index]
        keys[batch.slots, :, batch.positions] = k
        values[batch.slots, :, batch.positions] = v
        q = q.reshape(len(q), config.num_kv_heads, -1, config.head_dim) * np.float32(config.head_dim**-0.5)
        out = np.empty_like(q)
        if batch.padded is not None:
            attend_padded(q, batch.padded, keys, values, out)
        for first, end, slot, start in batch.long:
            length = start + end - first
            out[first:end] = attend_long(q[first:end], keys[slot, :, :length], values[slot, :, :length], start)
        return self._linear(out.reshape(len(q), -1), layer.wo)

    def _project(self, normed: Array, layer: Layer) -> tuple[Array, Array, Array]:
        """Queries (R, H, D), keys and values (R, K, D)."""
        rows, dim = len(normed), self.config.head_dim
        q = self._linear(normed, layer.wq)
        k = self._linear(normed, layer.wk)
        v = self._linear(normed, layer.wv)
        return q.reshape(rows, -1, dim), k.reshape(rows, -1, dim), v.reshape(rows, -1, dim)

    def _mlp(self, normed: Array, layer: Layer) -> Array:
        gate = self._linear(normed, layer.w_gate)
        up = self._linear(normed, layer.w_up)
        # silu(gate) * up = gate * up / (1 + exp(-gate)), in two buffers
        scale = np.negative(gate)
        np.exp(scale, out=scale)
        scale += 1
        gate *= up
        return self._linear(np.divide(gate, scale, out=scale), layer.w_down)

    def _norm(self, x: Array, weight: Array) -> Array:
        scale = np.einsum("rc,rc->r", x, x)
        scale /= np.float32(x.shape[1])
        scale += np.float32(self.config.norm_eps)
        np.sqrt(scale, out=scale)
        normed: Array = x / scale[:, None]
        normed *= weight
        return normed

    def _rotate(self, x: Array, rotation: tuple[Array, Array]) -> Array:
        """Rotary positions on (R, heads, D); the halves of D are (a, b)."""
        cos, sin = rotation
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        out = np.empty(x.shape, dtype=np.float32)
        np.multiply(a, cos, out=out[..., :half])
        np.multiply(b, cos, out=out[..., half:])
        out[..., :half] -= b * sin
        out[..., half:] += a * sin
        return out


def make_batch(segments: list[Segment], kv: KVCache, max_padded: int) -> Batch:
    """Flatten the segments into rows, in order; those of at most `max_padded` rows attend together, padded."""
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    wanted: list[int] = []
    long: list[tuple[int, int, int, int]] = []
    short: list[tuple[int, int, int]] = []
    for segment in segments:
        first, slot = len(ids), kv.slot(segment.seq)
        ids += segment.token_ids
        end, count = len(ids), segment.end - segment.start
        positions += range(segment.start, segment.end)
        slots += [slot] * count
        wanted += range(end - segment.want, end)
        if count > max_padded:
            long.append((first, end, slot, segment.start))
        else:
            short += [(row, slot, row - first) for row in range(first, end)]
    rows = np.array(positions, dtype=np.intp)
    padded = make_padded(np.array(short, dtype=np.intp), rows) if short else None
    return Batch(np.array(ids), rows, np.array(slots), np.array(wanted, dtype=np.intp), long, padded)


def make_padded(short: Index, positions: Index) -> Padded:
    """`short` holds row, slot and offset of every row; what other slots of the range compute is never read."""
    rows, slots, offsets = short.T
    first, longest = int(slots.min()), int(positions[rows].max()) + 1
    shape = (int(slots.max()) + 1 - first, int(offsets.max()) + 1, longest)
    limits = np.zeros(shape[:2], dtype=np.intp)
    limits[slots - first, offsets] = positions[rows]
    visible = np.arange(longest) <= limits[:, None, :, None, None]
    mask = np.where(visible, np.float32(0), np.float32(-np.inf))
    return Padded(rows, slots - first, offsets, first, shape, mask)


def attend_padded(q: Array, padded: Padded, keys: Array, values: Array, out: Array) -> None:
    """Attention of the padded batch; keys and values (N, K, T, D) are views of the slots, never copies."""
    (count, width, length), (_, heads, group, dim) = padded.shape, q.shape
    queries = np.zeros((count, heads, width, group, dim), dtype=np.float32)
    queries[padded.slots, :, padded.offsets] = q[padded.rows]
    span = slice(padded.first, padded.first + count)
    scores = queries.reshape(count, heads, -1, dim) @ keys[span, :, :length].swapaxes(-1, -2)
    scores.reshape(count, heads, width, group, length)[:] += padded.mask
    result = softmax(scores) @ values[span, :, :length]
    out[padded.rows] = result.reshape(count, heads, width, group, dim)[padded.slots, :, padded.offsets]


def attend_long(q: Array, keys: Array, values: Array, start: int) -> Array:
    """Causal attention of one long segment: q (R, K, G, D) against keys and values (K, S, D)."""
    count, heads, group, dim = q.shape
    queries = q.transpose(1, 2, 0, 3).reshape(heads, -1, dim)
    scores = queries @ keys.swapaxes(-1, -2)
    hidden = np.arange(keys.shape[1]) > np.arange(start, start + count)[:, None]
    scores.reshape(heads, group, count, -1)[:, :, hidden] = -np.inf
    return (softmax(scores) @ values).reshape(heads, group, count, dim).transpose(2, 0, 1, 3)


def softmax(scores: Array) -> Array:
    """Over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores
