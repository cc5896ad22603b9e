"""Decides which honest and which broken ways of serving tiny-llama the audit is calibrated with.

One batched decoder with a KV cache, independent of the seed server, in which each Variant changes one thing.
Axes: B responses, T positions, C hidden, H query heads, K key/value heads, D head dimension, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Weights = dict[str, Array]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way of serving; the defaults are an honest float32 server."""

    name: str
    honest: bool | None
    """None: tolerated where it passes, but no threshold is made for it."""
    weights: Callable[[Weights], Weights] = lambda w: w
    """Applied to the weights once."""
    batched: bool = True
    """False decodes one response after another, so that matrix products become matrix-vector products."""
    chunk: int | None = None
    """Prefill in chunks of so many tokens; None prefills at once."""
    cache: Callable[[Array], Array] = lambda x: x
    """Applied to keys and values before they are stored."""
    lost_rows: tuple[int, int] | None = None
    """KV rows [low, high) that are lost after the prefill."""
    rope_shift: int = 0
    """Positions by which decoded tokens are off."""
    skip_layer: int | None = None
    corrupt_every: int | None = None
    """One token in so many is replaced by a random one."""
    top_two_every: int | None = None
    """One token in so many is replaced by the model's second choice: the hardest to see."""


class Decoder:
    """Greedy generation of one variant for prompts of equal length."""

    def __init__(self, config: Any, weights: Weights, variant: Variant) -> None:
        self._config, self._variant = config, variant
        self._weights = variant.weights(weights)
        self._float = self._weights["embed"].dtype
        half = config.head_dim // 2
        angles = np.outer(np.arange(config.max_len + 1), config.rope_theta ** (-np.arange(half) / half))
        self._cos, self._sin = np.cos(angles).astype(self._float), np.sin(angles).astype(self._float)

    def generate(self, prompts_BT: Ids, tokens: int) -> Ids:
        """Output ids (B, tokens)."""
        if not self._variant.batched and len(prompts_BT) > 1:
            return np.concatenate([self.generate(row[None], tokens) for row in prompts_BT])
        rng = np.random.default_rng([int(prompts_BT[0, 0]), 7])
        batch, prompt = prompts_BT.shape
        shape = (self._config.num_layers, 2, batch, self._config.num_kv_heads, prompt + tokens, self._config.head_dim)
        self._kv = np.zeros(shape, dtype=self._float)
        self._prompt = prompt
        step = self._variant.chunk or prompt
        for start in range(0, prompt, step):
            logits = self._forward(prompts_BT[:, start : start + step], start)
        output: list[Ids] = []
        for position in range(tokens):
            output.append(self._choose(logits, rng))
            if position + 1 < tokens:
                logits = self._forward(output[-1][:, None], prompt + position)
        return np.stack(output, axis=1)

    def _choose(self, logits_BV: Array, rng: np.random.Generator) -> Ids:
        best = np.argsort(-logits_BV, axis=1)[:, :2]
        chosen, variant = best[:, 0].copy(), self._variant
        for every, wrong in [(variant.corrupt_every, None), (variant.top_two_every, best[:, 1])]:
            if every is not None:
                hit = rng.random(len(chosen)) < 1 / every
                chosen[hit] = rng.integers(99, logits_BV.shape[1], hit.sum()) if wrong is None else wrong[hit]
        return chosen

    def _forward(self, ids_BT: Ids, start: int) -> Array:
        """Logits (B, V) after the last of these tokens, the first of which is at position `start`."""
        w = self._weights
        x = w["embed"][ids_BT]
        for layer in range(self._config.num_layers):
            if layer != self._variant.skip_layer:
                x = x + self._attention(x, layer, start)
                x = x + self._mlp(x, f"layers.{layer}.")
        return np.asarray(self._norm(x[:, -1], w["final_norm"]) @ w["head"])

    def _attention(self, x_BTC: Array, layer: int, start: int) -> Array:
        config, w, prefix = self._config, self._weights, f"layers.{layer}."
        batch, length, _ = x_BTC.shape
        end, normed = start + length, self._norm(x_BTC, w[prefix + "attn_norm"])
        if prefix + "wqkv" in w:
            kv_width = config.num_kv_heads * config.head_dim
            q, k, v = np.split(normed @ w[prefix + "wqkv"], [-2 * kv_width, -kv_width], axis=-1)
        else:
            q, k, v = (normed @ w[prefix + name] for name in ("wq", "wk", "wv"))
        q, k, v = (a.reshape(batch, length, -1, config.head_dim).swapaxes(1, 2) for a in (q, k, v))
        self._kv[layer, 0, :, :, start:end] = self._variant.cache(self._rotate(k, start))
        self._kv[layer, 1, :, :, start:end] = self._variant.cache(v)
        keys, values = self._kv[layer, :, :, :, None, :end]
        group = config.num_heads // config.num_kv_heads
        q = self._rotate(q, start).reshape(batch, config.num_kv_heads, group, length, config.head_dim)
        scores = q @ keys.swapaxes(-1, -2) * self._float.type(config.head_dim**-0.5)
        scores[..., np.arange(end)[None, :] > np.arange(start, end)[:, None]] = -np.inf
        if self._variant.lost_rows is not None and start >= self._prompt:
            scores[..., slice(*self._variant.lost_rows)] = -np.inf
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out = (scores / scores.sum(axis=-1, keepdims=True)) @ values
        return np.asarray(
            out.reshape(batch, -1, length, config.head_dim).swapaxes(1, 2).reshape(batch, length, -1) @ w[prefix + "wo"]
        )

    def _mlp(self, x: Array, prefix: str) -> Array:
        w, normed = self._weights, self._norm(x, self._weights[prefix + "mlp_norm"])
        if prefix + "w_gate_up" in w:
            gate, up = np.split(normed @ w[prefix + "w_gate_up"], 2, axis=-1)
        else:
            gate, up = normed @ w[prefix + "w_gate"], normed @ w[prefix + "w_up"]
        return np.asarray((gate / (1 + np.exp(-gate)) * up) @ w[prefix + "w_down"])

    def _norm(self, x: Array, weight: Array) -> Array:
        return np.asarray(
            x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self._float.type(self._config.norm_eps)) * weight
        )

    def _rotate(self, x: Array, start: int) -> Array:
        start += self._variant.rope_shift if start >= self._prompt else 0
        cos, sin = self._cos[start : start + x.shape[-2]], self._sin[start : start + x.shape[-2]]
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def cast(dtype: type) -> Callable[[Array], Array]:
    """Round to `dtype` and back."""
    return lambda x: x.astype(dtype).astype(x.dtype)


def bfloat16(x: Array) -> Array:
    """Round float32 to the nearest bfloat16 and back."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def int8(x: Array) -> Array:
    """Round to 8 bits with one scale per column, the usual weight-only quantisation."""
    if x.ndim == 1:
        return x
    scale = np.abs(x).max(axis=0, keepdims=True) / 127
    return np.asarray(np.round(x / scale) * scale, dtype=np.float32)


def each(change: Callable[[Array], Array]) -> Callable[[Weights], Weights]:
    return lambda weights: {name: change(tensor) for name, tensor in weights.items()}


def fused(weights: Weights) -> Weights:
    """QKV in one matrix, gate and up in another."""
    out = dict(weights)
    for prefix in sorted({name.rpartition(".")[0] + "." for name in weights if name.startswith("layers.")}):
        out[prefix + "wqkv"] = np.concatenate([weights[prefix + n] for n in ("wq", "wk", "wv")], axis=1)
        out[prefix + "w_gate_up"] = np.concatenate([weights[prefix + n] for n in ("w_gate", "w_up")], axis=1)
    return out


def swapped_norms(weights: Weights) -> Weights:
    """Layer 2's two norms exchanged."""
    a, b = "layers.2.attn_norm", "layers.2.mlp_norm"
    return weights | {a: weights[b], b: weights[a]}


def unit_norms(weights: Weights) -> Weights:
    """Layer 2's norm weights ignored."""
    return weights | {n: np.ones_like(weights[n]) for n in ("layers.2.attn_norm", "layers.2.mlp_norm")}


VARIANTS = (
    Variant(name="float32, batched", honest=True),
    Variant(name="float32, one by one", honest=True, batched=False),
    Variant(name="float32, fused weights", honest=True, weights=fused),
    Variant(name="float32, prefill in chunks of 8", honest=True, chunk=8),
    Variant(name="float64", honest=True, weights=each(lambda x: x.astype(np.float64))),
    Variant(name="float16 KV cache", honest=True, cache=cast(np.float16)),
    Variant(name="float16 weights", honest=True, weights=each(cast(np.float16))),
    Variant(name="bfloat16 weights", honest=None, weights=each(bfloat16)),
    Variant(name="int8 weights", honest=False, weights=each(int8)),
    Variant(name="one KV row lost (first)", honest=False, lost_rows=(0, 1)),
    Variant(name="one KV row lost (last of the prompt)", honest=False, lost_rows=(31, 32)),
    Variant(name="16 KV rows lost", honest=False, lost_rows=(0, 16)),
    Variant(name="RoPE off by one while decoding", honest=False, rope_shift=1),
    Variant(name="last layer skipped", honest=False, skip_layer=5),
    Variant(name="layer 2 skipped", honest=False, skip_layer=2),
    Variant(name="norms of layer 2 swapped", honest=False, weights=swapped_norms),
    Variant(name="norm weights of layer 2 ignored", honest=False, weights=unit_norms),
    Variant(name="one token in 256 corrupted", honest=False, corrupt_every=256),
    Variant(name="one token in 256 is the second choice", honest=False, top_two_every=256),
)
