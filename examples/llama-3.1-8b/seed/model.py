"""Decides the logits: Llama's layers over all rows of a batch, in bf16 on a GPU and float32 on a CPU.

Axes: T rows, R rows with logits, V vocabulary, C hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from attention import Attention
from batch import Batch
from kv_cache import KVCache
from linear import Linear, Stream
from weights import read_config, read_weights


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer, in the order of their names."""

    attn_norm: torch.Tensor
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    o: torch.Tensor
    mlp_norm: torch.Tensor
    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor


NAMES = (
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


class Model:
    """Component `model`, interface 2."""

    def __init__(self, artifacts: Path, device: torch.device) -> None:
        self.config, self.device = read_config(artifacts), device
        self.linear, self.attention = Linear(self.config, device), Attention(self.config, device)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        weights = {name: tensor.to(dtype) for name, tensor in read_weights(artifacts, device).items()}
        self._embed, self._norm = weights["model.embed_tokens.weight"], weights["model.norm.weight"]
        self._head = weights["lm_head.weight"]
        self._layers = [
            Layer(*(weights[f"model.layers.{index}.{name}.weight"] for name in NAMES))
            for index in range(self.config.num_layers)
        ]

    def forward(self, batch: Batch, kv: KVCache) -> torch.Tensor:
        """Logits (R, V) of the rows that want them; K/V of all rows go to `kv`."""
        stream = self.linear.begin(batch.ids, self._embed, self._layers[0].attn_norm)
        norms = [layer.attn_norm for layer in self._layers[1:]] + [self._norm]
        for index, (layer, norm) in enumerate(zip(self._layers, norms, strict=True)):
            qkv = torch.cat([self.linear.project(stream, w) for w in (layer.q, layer.k, layer.v)], dim=-1)
            mixed = self.attention.attend(index, qkv, batch, kv)
            self.linear.add(stream, mixed, layer.o, layer.mlp_norm)
            self.linear.add(stream, self._gated(stream, layer), layer.down, norm)
        if batch.logit_rows is not None:
            stream = self.linear.pick(stream, batch.logit_rows)
        return self.linear.project(stream, self._head, "head")

    def _gated(self, stream: Stream, layer: Layer) -> torch.Tensor:
        gate = torch.nn.functional.silu(self.linear.project(stream, layer.gate))
        return gate * self.linear.project(stream, layer.up)
