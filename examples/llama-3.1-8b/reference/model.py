"""Decides what the model computes: a plain float32 Llama forward pass over bf16 weights, this target's ground truth.

Axes: B answers, T tokens, C hidden, H query heads, K key/value heads, D head dimension, V vocabulary.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from weights import read_weights

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The shape of the model, from a Hugging Face config.json."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_len: int
    """Longest sequence in tokens, prompt and output together."""
    norm_eps: float
    rope_theta: float
    rope_scaling: Json | None


def read_config(path: Path) -> Config:
    data = json.loads(path.read_text(encoding="utf-8"))
    return Config(
        hidden_size=data["hidden_size"],
        num_layers=data["num_hidden_layers"],
        num_heads=data["num_attention_heads"],
        num_kv_heads=data["num_key_value_heads"],
        head_dim=data["head_dim"],
        vocab_size=data["vocab_size"],
        max_len=data["max_model_len"],
        norm_eps=data["rms_norm_eps"],
        rope_theta=data["rope_theta"],
        rope_scaling=data.get("rope_scaling"),
    )


def rope_frequencies(config: Config) -> torch.Tensor:
    """Angle per position of each pair (D/2), float64, with the scaling of Llama 3.1.

    Wavelengths longer than the original context are stretched by `factor`, short ones stay, those between are mixed.
    """
    half = config.head_dim // 2
    frequencies = config.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    if scaling["rope_type"] != "llama3":
        raise ValueError(f"rope_scaling: expected rope_type 'llama3', got {scaling['rope_type']!r}")
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * (kept + (1 - kept) / scaling["factor"])


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight.to(x.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply rotary positions to (..., T, D): halves (a, b) → (a cos - b sin, b cos + a sin)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x @ W.T of float32 activations and bf16 weights, in float32.

    On a GPU the activations are taken apart into three bf16 terms, which together hold all of their bits: every product
    is exact in float32, only the sums are rounded, and it takes a quarter of the time (relative error on an H200: 4e-6;
    bf16 has 2e-3).
    """
    if not x.is_cuda:
        return F.linear(x, weight.float())
    rest = x.reshape(-1, x.shape[-1])
    total = torch.zeros(len(rest), len(weight), dtype=torch.float32, device=x.device)
    for _ in range(3):
        term = rest.to(torch.bfloat16)
        total += torch.mm(term, weight.T, out_dtype=torch.float32)
        rest = rest - term.float()
    return total.view(*x.shape[:-1], len(weight))


class Reference:
    """The whole forward pass, teacher-forced. Weights stay bf16 and are widened layer by layer."""

    def __init__(self, config: Config, weights: dict[str, torch.Tensor]) -> None:
        self.config = config
        self.weights = weights
        self.device = weights["model.norm.weight"].device

    @torch.inference_mode()
    def hidden(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Final normed hidden states (B, T, C). Rows are right-padded; causality keeps the padding out."""
        config = self.config
        angles = torch.arange(ids_BT.shape[1], dtype=torch.float64)[:, None] * rope_frequencies(config)
        cos, sin = (table.float().to(self.device) for table in (angles.cos(), angles.sin()))
        x = self.weights["model.embed_tokens.weight"][ids_BT.to(self.device)].float()
        for layer in range(config.num_layers):
            prefix = f"model.layers.{layer}."
            x = x + self._attention(self._norm(x, prefix + "input_layernorm.weight"), prefix + "self_attn.", cos, sin)
            x = x + self._mlp(self._norm(x, prefix + "post_attention_layernorm.weight"), prefix + "mlp.")
        return self._norm(x, "model.norm.weight")

    @torch.inference_mode()
    def logits(self, hidden_NC: torch.Tensor) -> torch.Tensor:
        """Logits (N, V) of hidden states."""
        return self._product(hidden_NC, "lm_head.weight")

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return rms_norm(x, self.weights[name], self.config.norm_eps)

    def _product(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return product(x, self.weights[name])

    def _attention(self, x_BTC: torch.Tensor, prefix: str, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        config = self.config
        batch, length, _ = x_BTC.shape

        def heads(name: str, count: int) -> torch.Tensor:
            made = self._product(x_BTC, f"{prefix}{name}_proj.weight")
            return made.view(batch, length, count, config.head_dim).transpose(1, 2)

        group = config.num_heads // config.num_kv_heads
        q = rotate(heads("q", config.num_heads), cos, sin)
        k = rotate(heads("k", config.num_kv_heads), cos, sin).repeat_interleave(group, dim=1)
        v = heads("v", config.num_kv_heads).repeat_interleave(group, dim=1)
        future = torch.ones(length, length, dtype=torch.bool, device=x_BTC.device).triu(1)
        out = torch.empty_like(q)
        for row in range(batch):  # one answer at a time: its scores are H·T² numbers
            scores = (q[row] @ k[row].transpose(-1, -2)) / math.sqrt(config.head_dim)
            out[row] = scores.masked_fill_(future, -math.inf).softmax(-1) @ v[row]
        return self._product(out.transpose(1, 2).reshape(batch, length, -1), prefix + "o_proj.weight")

    def _mlp(self, x: torch.Tensor, prefix: str) -> torch.Tensor:
        gated = F.silu(self._product(x, prefix + "gate_proj.weight")) * self._product(x, prefix + "up_proj.weight")
        return self._product(gated, prefix + "down_proj.weight")


def load_reference(artifacts: Path) -> Reference:
    """The reference model on the weights of the artifacts, on the GPU if there is one.

    Products are float32 throughout: TF32 would round activations to 10 bits.
    """
    torch.set_float32_matmul_precision("highest")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Reference(read_config(artifacts / "config.json"), read_weights(artifacts, device))
