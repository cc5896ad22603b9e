"""Decides which servers are honest and which are not, for calibration: a plain bf16 decoder, changed in one place each.

Axes: B answers, T tokens, C hidden, H query heads, K key/value heads, D head dimension, S cached positions.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "llama-3.1-8b" / "reference"))
from model import Config, rope_frequencies, rotate

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What one decoder does otherwise than plain bf16. `honest` None: it is for the audit to judge."""

    name: str
    honest: bool | None
    batch: int | None = None
    """Answers at a time; None: all."""
    weights: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Applied to every matrix of the layers."""
    kv: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Applied to keys and values on their way into the cache."""
    exact_attention: bool = False
    """Scores and softmax in float32, unfused."""
    wide_residual: bool = False
    """The residual stream in float32."""
    split_products: int = 1
    """Products in so many parts along K, each rounded to bf16 before they are added."""
    skipped_layer: int | None = None
    lost_row: int | None = None
    """Position, counted from the end of the prompt, that decoding does not see."""
    decode_shift: int = 0
    """Added to the positions of decoded tokens."""
    no_scaling: bool = False
    """RoPE without Llama 3's scaling."""
    window: int | None = None
    """Decoding sees only so many last positions."""
    plain_norm: int | None = None
    """A layer whose norms have no weights."""
    swap_at: int | None = None
    """One answer has its neighbour's token here."""


def fp8_rows(weight: torch.Tensor) -> torch.Tensor:
    """e4m3 with a scale per output row."""
    scale = weight.abs().amax(-1, keepdim=True).float() / 448
    return ((weight.float() / scale).to(torch.float8_e4m3fn).float() * scale).to(weight.dtype)


def int8_rows(weight: torch.Tensor) -> torch.Tensor:
    """Whole numbers from -127 to 127 with a scale per output row."""
    scale = weight.abs().amax(-1, keepdim=True).float() / 127
    return ((weight.float() / scale).round() * scale).to(weight.dtype)


def fp8(values: torch.Tensor) -> torch.Tensor:
    """e4m3 without a scale."""
    return values.to(torch.float8_e4m3fn).to(values.dtype)


VARIANTS = (
    Variant(name="bf16, fused attention, batched", honest=True),
    Variant(name="bf16, 4 at a time", honest=True, batch=4),
    Variant(name="bf16, float32 attention", honest=True, exact_attention=True),
    Variant(name="bf16, float32 residual", honest=True, wide_residual=True),
    Variant(name="bf16, products in 4 rounded parts", honest=True, split_products=4),
    Variant(name="int8 weights, scale per row", honest=None, weights=int8_rows),
    Variant(name="fp8 weights, scale per row", honest=None, weights=fp8_rows),
    Variant(name="fp8 KV cache", honest=None, kv=fp8),
    Variant(name="first KV row lost", honest=False, lost_row=-1_000_000),
    Variant(name="last KV row of the prompt lost", honest=False, lost_row=-1),
    Variant(name="decoded positions off by one", honest=False, decode_shift=1),
    Variant(name="RoPE without scaling", honest=False, no_scaling=True),
    Variant(name="window of 48", honest=False, window=48),
    Variant(name="middle layer skipped", honest=False, skipped_layer=-1),
    Variant(name="one layer's norms without weights", honest=False, plain_norm=1),
    Variant(name="one token of one answer is its neighbour's", honest=False, swap_at=20),
)


class Decoder:
    """Greedy answers to prompts of one length, with a cache that is filled once and then appended to."""

    def __init__(self, config: Config, weights: Weights, variant: Variant) -> None:
        self.config, self.variant = config, variant
        self.weights = weights
        self.device = weights["model.norm.weight"].device
        if variant.weights is not None:
            matrices = [name for name in weights if name.endswith("_proj.weight")]
            self.weights = weights | {name: variant.weights(weights[name]) for name in matrices}

    @torch.inference_mode()
    def generate(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        size = self.variant.batch or len(prompts)
        return [row for at in range(0, len(prompts), size) for row in self._batch(prompts[at : at + size], tokens)]

    def _batch(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        config, length = self.config, len(prompts[0])
        shape = (len(prompts), config.num_kv_heads, length + tokens, config.head_dim)
        blank = partial(torch.zeros, shape, dtype=torch.bfloat16, device=self.device)
        cache = [(blank(), blank()) for _ in range(config.num_layers)]
        chosen = [self._step(torch.tensor(prompts, device=self.device), 0, cache, length)]
        while len(chosen) < tokens:
            if len(chosen) - 1 == self.variant.swap_at:
                chosen[-1][0] = chosen[-1][-1]
            chosen.append(self._step(chosen[-1][:, None], length + len(chosen) - 1, cache, length))
        return [[int(token) for token in row] for row in torch.stack(chosen, 1).tolist()]

    def _step(
        self, ids_BT: torch.Tensor, start: int, cache: list[tuple[torch.Tensor, torch.Tensor]], prompt: int
    ) -> torch.Tensor:
        """Next token (B) after positions start … start + T - 1."""
        config, variant = self.config, self.variant
        shift = variant.decode_shift if start else 0
        positions = torch.arange(start + shift, start + shift + ids_BT.shape[1], dtype=torch.float64)
        shape = replace(config, rope_scaling=None) if variant.no_scaling else config
        angles = positions[:, None] * rope_frequencies(shape)
        rope = (angles.cos().float().to(self.device), angles.sin().float().to(self.device))
        mask = self._mask(start, ids_BT.shape[1], prompt)
        x = self.weights["model.embed_tokens.weight"][ids_BT]
        x = x.float() if variant.wide_residual else x
        skipped = None if variant.skipped_layer is None else config.num_layers // 2
        for layer in range(config.num_layers):
            if layer == skipped:
                continue
            prefix = f"model.layers.{layer}."
            normed = self._norm(x, prefix + "input_layernorm.weight", layer)
            x = x + self._attention(normed, prefix + "self_attn.", cache[layer], (start, rope, mask))
            normed = self._norm(x, prefix + "post_attention_layernorm.weight", layer)
            gate, up = (self._product(normed, f"{prefix}mlp.{name}_proj.weight") for name in ("gate", "up"))
            x = x + self._product(F.silu(gate) * up, prefix + "mlp.down_proj.weight")
        last = self._norm(x[:, -1], "model.norm.weight", None)
        return F.linear(last, self.weights["lm_head.weight"]).argmax(-1)

    def _mask(self, start: int, length: int, prompt: int) -> torch.Tensor:
        """Which of the cached positions (T, S) each new one sees."""
        variant = self.variant
        rows = torch.arange(start, start + length, device=self.device)[:, None]
        columns = torch.arange(start + length, device=self.device)[None, :]
        seen = columns <= rows
        if start and variant.lost_row is not None:
            seen = seen & (columns != max(0, prompt + variant.lost_row))
        if start and variant.window is not None:
            seen = seen & (columns > rows - variant.window)
        return seen

    def _norm(self, x: torch.Tensor, name: str, layer: int | None) -> torch.Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.config.norm_eps)
        if layer is None or layer != self.variant.plain_norm:
            wide = wide * self.weights[name].float()
        return wide.to(torch.bfloat16)

    def _product(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight, parts = self.weights[name], self.variant.split_products
        if parts == 1:
            return F.linear(x, weight)
        pairs = zip(x.chunk(parts, -1), weight.chunk(parts, -1), strict=True)
        return torch.stack([F.linear(*pair) for pair in pairs]).sum(0)

    def _attention(
        self,
        x_BTC: torch.Tensor,
        prefix: str,
        cache: tuple[torch.Tensor, torch.Tensor],
        place: tuple[int, tuple[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        config, (start, (cos, sin), mask_TS) = self.config, place
        batch, length, _ = x_BTC.shape

        def heads(name: str, count: int) -> torch.Tensor:
            made = self._product(x_BTC, f"{prefix}{name}_proj.weight")
            return made.view(batch, length, count, config.head_dim).transpose(1, 2)

        q, k = (rotate(heads(n, c).float(), cos, sin).to(torch.bfloat16) for n, c in self._rotated())
        new = (k, heads("v", config.num_kv_heads))
        for store, values in zip(cache, new, strict=True):
            store[:, :, start : start + length] = values if self.variant.kv is None else self.variant.kv(values)
        group = config.num_heads // config.num_kv_heads
        k, v = (store[:, :, : start + length].repeat_interleave(group, dim=1) for store in cache)
        if self.variant.exact_attention:
            scores = (q.float() @ k.float().transpose(-1, -2)) / math.sqrt(config.head_dim)
            out = (scores.masked_fill(~mask_TS, -math.inf).softmax(-1) @ v.float()).to(torch.bfloat16)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_TS)
        return self._product(out.transpose(1, 2).reshape(batch, length, -1), prefix + "o_proj.weight")

    def _rotated(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return ("q", self.config.num_heads), ("k", self.config.num_kv_heads)
